"""Words that are no names, and prose without any: what a recogniser must leave alone.

From Python's own reference and docstrings, from the names of Unicode's pictures, from Faker's word lists,
from the vocabulary of a tokenizer, and some by hand for what people ask banks, shops and assistants.
"""

import ast
import base64
import os
import random
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics

from faker import Faker

from benchmarks.recogniser.pools import Coined

_CREDITS = re.compile(r"(?i)written|author|copyright|contribut|@|>>>|\bby [A-Z]")
_CL100K = "litellm_core_utils/tokenizers/9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
_WORD = re.compile(rb" [a-z]{3,16}")
_SENTENCE = re.compile(r"[A-Z][^.!?]{25,220}[.!?](?=\s|$)")

MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday Mon Tue Wed Thu Fri Sat Sun".split()
BRANDS = (
    "Visa Mastercard PayPal iPhone Android Windows Linux Chrome Firefox Safari Excel Outlook Gmail Netflix Spotify "
    "YouTube Instagram WhatsApp Slack Zoom Docker Kubernetes PostgreSQL Redis Python JavaScript TypeScript Java Rust "
    "GitHub Jira SAP Bluetooth USB HDMI Wi-Fi Maestro Amex Bitcoin Ethereum SEPA SWIFT IBAN ATM PIN CVV KYC VAT GDPR "
    "API JSON CSV PDF HTTP URL SQL SDK CPU GPU LoRA OpenAI GPT Claude Gemini Llama Qwen Mistral PlayStation Xbox Kindle"
).split()
EVERYDAY = (
    "was were been went gone came saw seen took taken gave given got gotten did done made said told knew known thought "
    "brought bought caught taught fought sought sold sent spent lent lost left kept slept felt met paid laid held stood "
    "understood began begun ran swam sang rang drank wrote written drove driven rode ridden rose fell ate eaten broke broken "
    "chose chosen spoke woke wore worn tore stole stolen froze forgot forgotten hid bit beat became grew threw flew drew blew "
    "withdrew shown won hung dug stuck struck swung bent built burnt dealt dreamt fed fled led learnt leapt lit read shot shut "
    "sat spilt spun spread swept swore wept wound wasn weren isn aren don doesn didn won wouldn couldn shouldn hasn haven hadn "
    "ain im ive ill dont cant wont didnt doesnt isnt whats thats hows wheres gonna wanna gotta lemme kinda yeah yep nope ok okay "
    "hey hello bye goodbye thanks please sorry oops wow ugh hmm lol maybe actually basically somehow anyway anything something "
    "nothing everything someone anyone everyone nobody somebody anybody myself yourself himself herself itself ourselves "
    "themselves whoever whatever whichever wherever whenever however therefore although unless until whether though despite "
    "abroad overseas downtown upstairs outside inside nearby ahead behind beside beneath underneath tonight tomorrow yesterday "
    "today morning evening afternoon midnight noon weekend weekday fortnight decade century birthday anniversary holiday "
    "mother father mom mum dad parent parents sister brother son daughter aunt uncle cousin nephew niece grandma grandpa "
    "grandmother grandfather husband wife spouse partner boyfriend girlfriend fiance child children baby kid kids teenager adult "
    "friend neighbor neighbour colleague boss landlord tenant guest host stranger owner buyer seller merchant retailer cashier "
    "nurse doctor dentist lawyer plumber electrician mechanic driver pilot waiter chef barber tailor farmer soldier priest judge "
    "jacket coat shirt dress skirt trousers pants jeans shoe shoes sock socks boots hat glove scarf belt wallet purse bag backpack "
    "suitcase umbrella watch necklace earrings glasses pocket zipper button laundry detergent towel blanket pillow mattress sheet "
    "kitchen bathroom bedroom basement attic garage balcony hallway ceiling wall floor window door lock key stairs elevator "
    "furniture sofa couch chair desk table lamp shelf drawer cupboard closet fridge freezer microwave oven stove kettle toaster "
    "dishwasher vacuum broom bucket sponge spoon fork knife plate bowl mug cup pan pot lid tray napkin "
    "breakfast lunch dinner supper brunch snack dessert pizza pasta sushi burger sandwich taco burrito lasagna curry stew roast "
    "steak bacon sausage turkey beef pork lamb salmon tuna shrimp lobster tofu egg eggs milk yogurt cream cheddar mozzarella "
    "butter flour yeast honey syrup vanilla cinnamon pepper salt vinegar mustard ketchup mayonnaise garlic ginger basil parsley "
    "tomato potato carrot lettuce spinach broccoli cucumber zucchini mushroom pumpkin avocado apple banana orange grape lemon lime "
    "peach pear plum cherry strawberry raspberry mango pineapple melon coconut almond peanut walnut cookie cake pie muffin donut "
    "chocolate candy juice soda beer wine whiskey vodka cocktail espresso latte decaf calories protein carbs vitamin gluten vegan "
    "headache fever cough cold flu nausea rash allergy asthma diabetes cancer surgery pill prescription vaccine pharmacy hospital "
    "clinic ambulance bandage knee elbow shoulder ankle wrist thumb toe stomach throat tooth teeth lungs heart kidney muscle "
    "mortgage rent lease salary wage bonus pension savings checking overdraft interest loan debt invoice receipt refund rebate "
    "coupon discount voucher deposit withdrawal transfer balance statement fee surcharge overcharged penalty tax audit payroll "
    "w2 w-2 401k ira apr visa mastercard debit credit prepaid contactless chip pin cvv iban swift sort routing beneficiary payee "
    "fiat crypto exchange currency cash coin banknote cheque check checkbook chequebook branch teller vault fraud scam phishing "
    "stolen lost hacked compromised suspicious unauthorized unauthorised verified unverified verification authentication identity "
    "selfie passport residency citizenship nationality immigration customs border embassy consulate tourist itinerary layover "
    "boarding luggage carryon airline flight runway terminal cruise ferry subway tram taxi cab uber lyft scooter bicycle bike "
    "motorcycle truck van engine brake tire tyre mileage odometer gasoline diesel mpg jumpstart coolant windshield wiper headlight "
    "traffic highway freeway roundabout detour parking meter toll license licence insurance deductible premium "
    "thermostat heater furnace humidity forecast drizzle thunderstorm blizzard hail sunny cloudy windy rainy snow umbrella "
    "playlist song album artist band concert podcast movie trailer episode sequel actor theater museum gallery novel poem "
    "soccer football baseball basketball hockey tennis golf cricket rugby boxing wrestling swimming skiing gym yoga workout "
    "puppy kitten hamster goldfish parrot horse cow pig sheep goat chicken duck rabbit squirrel spider mosquito"
).split()
DEMONYMS = (
    "American British Canadian Australian Irish Scottish Welsh English French German Austrian Swiss Dutch Belgian Italian "
    "Spanish Portuguese Greek Turkish Russian Ukrainian Polish Czech Slovak Hungarian Romanian Bulgarian Serbian Croatian "
    "Slovenian Danish Swedish Norwegian Finnish Icelandic Estonian Latvian Lithuanian Chinese Japanese Korean Indian Thai "
    "Pakistani Vietnamese Indonesian Mexican Brazilian Chilean Argentine Colombian African Nigerian Kenyan Egyptian Arab "
    "Israeli Iranian Iraqi Asian European Latin Jewish Muslim Christian Catholic Hindu Buddhist Greenlander Maltese Cuban"
).split()
CURRENCIES = (
    "dollar dollars euro euros pound pounds yen yuan rupee rupees ruble rubles rouble franc francs krona krone zloty forint "
    "peso pesos real lira won rand dirham shekel baht bitcoin Dollar Euro Pound Pounds Yen Ruble Rubles Franc GBP USD EUR JPY AUD"
).split()
VERBS = (
    "change cancel find open close check update activate order track pay send get use see buy book schedule reset "
    "add remove verify transfer top exchange convert block freeze unblock replace report dispute return refund "
    "receive withdraw deposit make set turn play stop call cook translate spell measure share move hear say tell "
    "remind file apply renew extend split lower raise compare link unlink delete upgrade downgrade explain write "
    "summarise fix print read download upload install start rent sell repair clean learn save spend borrow lend"
).split()
NOUNS = (
    "card account balance payment pin password phone number limit fee charge refund order invoice bill top-up cash "
    "transfer money app identity passport atm exchange rate currency statement beneficiary deposit mortgage loan "
    "credit score flight hotel car ticket reservation meal recipe calories oven tire oil gas insurance tax vacation "
    "days pto direct payroll schedule meeting alarm timer list shopping reminder song playlist music speaker volume "
    "accent weather traffic distance time date calendar language name title email address contract subscription "
    "plan package delivery item receipt salary income check routing swift wallet key lost stolen virtual physical "
    "disposable document photo picture file folder screen battery charger laptop server table function class "
    "test error log message user client model prompt token cache query index report customer school teacher student "
    "doctor appointment medicine dose allergy symptom dog cat joke story coin dice fun fact life meaning hobby "
    "restaurant menu coffee tea lunch dinner bread rice chicken soup cheese onions butter sugar water house room "
    "kitchen garden train bus station airport gate luggage visa vaccine plug"
).split()
ADJECTIVES = (
    "new old second virtual pending wrong extra free international direct last next first lost stolen expired "
    "monthly weekly daily annual cheap good best bad favorite different same current full empty foreign local "
    "late early long short hot cold big small top main available supported declined failed frozen open closed"
).split()
TITLES = (  # of songs, films, genres, headings: capitals that are no names
    "Action Adventure Animation Comedy Kids Family Mystery Suspense Drama Horror Romance Documentary Western "
    "Classics Fantasy Musical Performing Arts Directed Written Theaters Runtime Rating Genre Studio Chapter Introduction "
    "Overview Summary Conclusion Abstract Background Methods Results Discussion References Appendix Greatest Hits Live "
    "Love Night Blue Heart Dance Battle Dark Rock Roll River Street Fire Dream Baby Girl Boy Man Woman World Time Home"
).split()
FORM_KEYS = (
    "Date Total Amount Subject Order Invoice Status Priority Category Quantity Price Reference Department Position "
    "Phone Fax Mobile Email E-mail Website Web Tel Office Extension Account IBAN BIC Currency Notes Comment Description "
    "Type Version Product Size Color Weight Shipping Payment Method Due Terms Customer Client Contact Personal Info "
    "Details Billing Delivery Summary Question Answer Bot User Assistant System Agent Ticket Request Response"
).split()


@cache
def prose() -> tuple[str, ...]:
    """Sentences of technical English, in a fixed order."""
    texts = [*topics.values(), *_docstrings()]
    found = (" ".join(s.split()) for text in texts for s in _SENTENCE.findall(text))
    return tuple(dict.fromkeys(s for s in found if not _CREDITS.search(s)))


def _docstrings() -> Iterator[str]:
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text("utf-8", "replace"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield ast.get_docstring(node) or ""


@cache
def vocabulary() -> tuple[str, ...]:
    """Words in small letters that are no names, common ones first; the last thousands hold parts of words too."""
    common = [w.lower() for w in Faker("en_US").get_words_list()]
    by_hand = [w.lower() for w in (*VERBS, *NOUNS, *ADJECTIVES, *EVERYDAY, *DEMONYMS, *CURRENCIES)]
    pictures = " ".join(unicodedata.name(chr(c), "") for c in range(0x1F300, 0x1FAFF)).lower()
    return tuple(dict.fromkeys([*common, *by_hand, *_lexicon(), *re.findall(r"[a-z]{3,}", pictures)]))


def _lexicon() -> Iterator[str]:
    """Of a tokenizer's vocabulary, which is in the order of frequency, what is seen in small letters first.

    A name is seen with a capital first.
    """
    package = find_spec("litellm")
    if package is None or package.origin is None:
        raise ImportError("litellm, whose wheel holds the vocabulary")
    lines = (Path(package.origin).parent / _CL100K).read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)}
    for token, rank in ranks.items():
        if _WORD.fullmatch(token) and rank < ranks.get(b" " + token[1:].capitalize(), len(ranks)):
            yield token[1:].decode()


def inflected(word: str, rng: random.Random) -> str:
    """Another word of the same stem, perhaps one that no dictionary has."""
    kind = rng.choice(
        (
            "s",
            "ed",
            "ing",
            "ly",
            "er",
            "ness",
            "able",
            "un",
            "re",
            "over",
            "tion",
            "ment",
            "al",
            "ful",
            "less",
            "ish",
            "y",
        )
    )
    if kind in ("un", "re", "over"):
        return kind + word
    return (word[:-1] if word[-1] in "ey" else word) + kind


def misspelt(word: str, rng: random.Random) -> str:
    """With a letter too few, twice or before its turn."""
    i = rng.randrange(len(word))
    return (
        rng.choice(
            (
                word[:i] + word[i + 1 :],
                word[:i] + word[i] + word[i:],
                word[:i] + word[i:][1::-1] + word[i + 2 :],
            )
        )
        or word
    )


@cache
def english() -> Coined:
    """Makes words that look English and are none."""
    return Coined([w for w in vocabulary() if len(w) > 4])


@cache
def jobs() -> tuple[str, ...]:
    fake = Faker("en_US")
    fake.seed_instance(0)
    return tuple(sorted({fake.job() for _ in range(2000)}))
