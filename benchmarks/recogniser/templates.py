"""Sentences, forms and letters with gaps. `{person}`: any name; `{first}`, `{last}`, `{full}`: that part.

`{address}`: one line or several; `{street}`: street and number alone. `{org}`, `{place}`, `{city}`,
`{country}`. All other gaps hold what is not to be found: `{date}`, `{phone}`, `{email}`, `{url}`, `{code}`,
`{job}`, `{thing}`, `{noun}`, `{verb}`, `{adj}`, `{words}`, `{title}`, `{key}`, `{prose}`.
"""

PERSONS = """
My name is {person}
my name is {person}.
I am {full}, {job} at {org}.
I'm {person}
Hi, this is {person} speaking.
Call me {first}.
You can call me {first} or {first}
The name on the card is {full}.
Name on the account? {full}
What's your name? {full}
What is your first name? {first}
And your last name please? {last}
Surname: {last}
It should be under {full}.
Check under {last} please
The booking was made by {person} for {person} on {date}.
Dear {person},
Dear {person}, thank you for your {noun}.
Hi {first},
Hey {first}! {prose}
Hello {first}, {prose}
Thanks, {first}
Best regards, {full}
Kind regards,\n{full}\n{job}\n{org}
Yours sincerely,\n\n{full}
{prose} {first}
- {first}
Signed: {full}
Who is {full}?
Is {person} there?
Have you seen {person} {verb} the {noun}?
Why is {person} so {adj}?
Why did {person} {verb} my {noun}?
Please {verb} the {noun} for {person}.
Please forward this to {person} and {person}.
Send {money} to {person}
Transfer {code} to {full}, account {code}.
{person} called about the {noun} on {date}.
{person} is the {job} of {org}.
{person}, {job}, said the {noun} was {adj}.
{person} said: "{prose}"
"{prose}" says {person}, who lives in {place}.
{person} and {person} will {verb} the {noun}.
{person} was born in {place} on {date}.
{person} (born {date}) is a {job} from {country}.
{person}'s {noun} is {adj}.
I spoke with {person} at {org} yesterday.
I talked to {person}, {person} and {person} about the {noun}.
Members: {full}, {full}, {full} and {full}
The patient {full} complains of {words}.
Mr {last} and Mrs {last} want to {verb} their {noun}.
{last} won against {last} in {place}.
{last} et al. ({date}) {words}.
According to {last}, {words}.
{title} by {full}
{title} (feat. {full})
Directed by: {full}
Written By: {full}, {full}
Starring: {full}, {full}, {full}
Author: {full} <{email}>
{title} is a song written by {full} and released in {date}.
{full} recorded "{title}" in {date} with {person}.
As {last} once put it: {prose}
It reminds me of {person}, who {words}.
I like {person} more than {person}.
{first}: {prose}
{first}: {prose}\n{first}: {prose}
{first}: {prose}\n{first}: {prose}\n{first}: {prose}
User: {prose}\nBot: What is the name?\nUser: {full}
agent: may I have your name? user: {full}
[{date}] {first}: {words}
[{date}] {first} {last}: {prose}
Tell {first} that {words}
{first}, can you {verb} the {noun}?
How do I {verb} {person}'s {noun}?
My wife {first} and my son {first} {words}.
My boss, {full}, {words}.
His name was {person} and he {words}.
A {job} named {full} {words}
The {noun} was signed by {full} in {city}.
Contact {full} at {phone} or {email}.
cc: {full}, {full}
From: {full} <{email}>\nTo: {full} <{email}>\nSubject: {words}
To: {full}; {full}
Attn: {full}
c/o {full}
{person}, {code}, {words}.
President {last} met {full} in {place}.
Invite {first}, {first} and {first} to the {noun}.
@{first} please {verb} the {noun}
Is {place} where {person} lives?
{first} loves {first}.
{full} vs. {full}
Remember {person}? {prose}
Where is {person}'s {noun}?
{prose} What would {person} do?
The account belongs to {full} ({email}).
{full} paid {code} for {words} at {org}.
Candidate: {full}\nPosition: {job}\nLocation: {place}
{full} ({org})
{full} - {job}, {org}
{full} | {job} | {phone}
Translate into French: "{person} {words}"
Write an email to {full} about {words}.
Draft a letter from {full} to {full}: {words}
Summarise: {person} {words}. {person} {words}.
Is there a {noun} in the name of {full}, born {date}?
We regret to inform {person} that {words}
{person} asked {person} to {verb} {person}.
{person} joined {org} in {date} as {job}.
{person} studied at {org}, then moved to {place}.
Early {last} is better than late {last}.
{last}'s {title} was {adj}.
{last} family, {place}
The works of {full} and {last}'s {noun}
"""

ADDRESSES = """
My address is {address}
I live at {address}.
{full} lives at {address}
I moved from {address} to {address}
Please send it to {address}
Please deliver the {noun} to {address}. Thanks
Ship to: {address}
Shipping address: {full}\n{address}
Billing address: {full}\n{address}
Deliver to {full}, {address}
Address: {address}
Address:\n{address}
{full}\n{address}
{full}\n{org}\n{address}
{full}\n\n{address}
{org}\n{address}
{org}\n\n{address}\n{phone}
{full}\n{job}\n{org}\n{address}\nTel: {phone}\n{email}
Name: {full}\nAddress: {address}
Name:  {full}\nStreet: {street}\nCity: {city}\nCountry: {country}
Name: {full}\nPhone: {phone}\nAddress: {address}\nEmail: {email}
{org} has its branch in {city} at {address}
I left a {noun} at {address} for {person}
{full} ({job})\n{org}\n{address}\n{phone} {email} {url}
Our offices are at {address} and {address}.
We meet at {address} on {date}.
The {noun} is at {address}. It has a {adj} {noun}.
How do I get to {address}?
How far is it from {address} to {place}?
What's the address? It is {address}
What is your address? {address}
where should it be sent? {address}
Update my address to {address} please
I would like to change my address: {address}
The following address is wrong, can you check? {address}
My old address was {address}, the new one is {address}.
Two addresses: {address}; {address}
1) {address}\n2) {address}
Return to sender: {address}
Directions from {street} to {street}
The accident happened on {street} near {place}.
{prose} It stands at {street}.
Branch: {street}, {city}
{address}
{address}\n
{prose}\n\n{full}\n{address}
Dear {person},\n\n{prose} {prose}\n\nBest regards,\n{full}\n{org}\n{address}
{org}, {address}, {date}\n\nDear {person},\n{prose}
Invoice {code}\nBill to: {full}\n{address}\nAmount: {code}
Sender: {full}, {address}\nRecipient: {full}, {address}
Pick me up at {street} at {date}
taxi to {street} please
The property at {address} was sold for {code}.
The tenant, {full}, of {address}, agrees to {words}.
Send flowers to {full}, {address}, on {date}.
Customer {full} ({code}) moved to {address}.
Here is where I live: {address}. Is it in your {noun} area?
Do you deliver to {address}?
it's {address} and my phone is {phone}
The street is {street}, {place}
Registered office: {address}
Registered address: {org}, {address}
Headquarters: {place}. Visit us at {address}.
"""

PLACES = """
I will be in {place} from {date} to {date}.
Do you ship to {country}?
Does it work in {place}?
What is the capital of {country}?
How is the weather in {city}?
weather in {city} {country}
Flights from {city} to {city} on {date}
book a hotel in {city} for {date}
I am originally from {place}.
The best {noun} in {city}, {country}
{city} is a city in {country}.
He moved from {place} to {place} in {date}.
Country: {country}
City: {city}\nState: {place}
ZIP: {code}
{words} in {country} and {country}.
{place}: {prose}
The {noun} is made in {country}.
{city} ({country})
How long does a transfer from {country} take?
I have to send something to {country} by {date}, {words}
a flight from {city} to {city} with {thing}
how do i get from {city} to {city}
what is the timezone of {city}
are there travel alerts for {place}
do i need a {noun} for {place}
{place}'s {noun} is {adj}
should I {verb} in {place} or in {place}?
{words} outside {org} in {city}. {prose}
"""

ORGS = """
I work at {org}.
I work for {org} in {city}.
{org} is a {adj} company.
{org} announced {words}.
{org} and {org} will {verb} {words}.
The {org} {noun} is {adj}.
My payment to {org} was declined.
I got charged by {org} for {words}
Company: {org}
Employer: {org}\nOccupation: {job}
{org} hired {code} people in {place}.
shares of {org} fell {code}
Invoice from {org} ({code})
{org} was founded in {date} in {place}.
{title} at {org}.
{org}: {prose}
Have you heard of {org}?
{org} develops {words}.
Bank: {org}
The {job} of {org} {words}.
"""

OTHER = """
{prose}
{prose} {prose}
{prose} {prose} {prose}
{Words}
{words}
{words}?
{title}
{title}, {title}
{title} & {title}, {title}
{title}: {words}
"{title}" is a {adj} {noun}. {prose}
{Word} {words}. {Word} {words}.
{Word} {words}, {words}. {Word}? {Word}!
How do I {verb} my {noun}?
How can I {verb} a {adj} {noun}?
How long does it take to {verb} a {noun}?
How much is the {noun} {noun}?
Why was my {noun} {adj}?
Why does my {noun} still say {adj}?
Why hasn't my {noun} {noun} arrived yet?
Can I {verb} the {adj} {noun} from {thing}?
Can you {verb} my {noun} and {verb} the {noun}?
Could you please {verb} my {noun}?
Is it possible to {verb} {noun} with {thing}?
Where can I {verb} a {noun}?
Where do I find the {noun} for my {noun}?
What is the {noun} of the {noun}?
What are the {adj} {noun} options?
What should I do if my {noun} is {adj}?
What do I do to {verb} a {noun}?
When will my {noun} {verb}?
Which {noun} do you {verb}?
Who can {verb} the {noun}?
Who invented the {noun}?
Do you {verb} {thing}?
I want to {verb} my {noun}.
I need to {verb} the {noun} by {date}.
I would like to {verb} a {adj} {noun}, please
I tried to {verb} my {noun} but it was {adj}. {Word} {words}?
I think my {noun} is {adj}. What now?
I have a {adj} {noun} on my {noun} that I did not {verb}!
I cannot {verb} {noun}. Please help
My {noun} is {adj}.
My {adj} {noun} has not come through yet
My card {code} is {adj}.
My {thing} isn't working
My email is {email}
My phone number is {phone}, please call
The {noun} that I {verb} was {adj}. Please {verb} it.
The {adj} {noun} was {verb}ed twice.
There is a {noun} of {code} on my {noun}
Please {verb} the {noun}, {verb} the {noun} and {verb} it.
Please {verb} me to the {noun} {noun}
Tell me the {noun} of {thing}
Tell me a {noun} about a {noun}
Set a {noun} for {date}
{verb} the {noun}
{verb} my {noun} to the {adj} {noun}
{verb} {noun} from {noun} to {noun}
{adj} {noun}
{Word} {Word}
Yes
No, thanks
OK great, {words}
Thanks! {Word} {words}.
Thank you for your help. {Word} {words}
Hi there
Hello, can you help me with {words}?
Hey, {words}
Sorry, {words}
Help! {Word} {words}
Good morning! I {verb} the {noun}
{date}
{code}
{Word}: {code}
{key}: {code}
{key}: {date}\n{key}: {code}
{key}: {words}\n{key}: {code}\n{key}: {email}
{key} {key}: {Word}
{key}:
{key} {code} {words}
{date}: {words} ({code})
Order {code} of {date}: {code} x {Word} {thing}
Meeting on {date} about {words}
Deadline {date}, budget {code}
{thing} {code} {thing} {words}
{thing} and {thing} {words}. {thing} {words}.
The {thing} {noun} needs {thing} {code} or {thing}.
Error: {words} at {code} in {thing}
{Word}{Word}Error: {words}
def {verb}_{noun}({noun}, {noun}): return {noun}.{verb}({code})
import {noun}\n\nclass {Word}{Word}({Word}):\n    '''{prose}'''\n    {noun} = {code}
SELECT {noun}, {noun} FROM {noun}s WHERE {noun} = '{code}'
$ {verb} --{noun}={code} {noun}.{noun}
{url}
Visit {url} for {words}
{job}
I am a {job}.
We are looking for a {job} with {words}
{job}, {job} and {job}
the {adj} {job} {words}
1. {Word} {words}\n2. {Word} {words}\n3. {Word} {words}
- {Word} {words}\n- {Word} {words}\n- {Word}
# {title}\n\n{prose}\n\n## {title}\n\n{prose}
| {key} | {key} |\n|---|---|\n| {Word} | {code} |
You are a helpful assistant. {prose}
You are an expert {job}. {prose} Answer in {key}.
Classify the following {noun} as {Word}, {Word} or {Word}: {words}
Translate into German: {words}
Summarise this text: {prose} {prose}
Write a {noun} about {words}
Explain {words} like I am {code}.
Given {code} {noun} and {code} {noun}, how many {noun} are left?
The {code} year old {noun} {words}
{words} {date} {words} {code}
Lorem ipsum dolor sit amet, consectetur adipiscing elit
Merry Christmas and a happy New Year
I'm in the {adj} {noun}, it's {words}
What's the {noun} in {key} {code}?
Is {date} a holiday?
On {date} the {noun} was {adj}; since {date} it is {adj}.
He said that {words}. She {words}. They {words}.
Mom and Dad {words}.
God, {words}
English, French and German {noun}
the Italian {noun} and a Greek {noun} {words}
She is {demonym}, he is {adj}
I am a {demonym} citizen, can I {verb} a {noun}?
the {demonym} {noun} and the {demonym} {currency}
{verb} {code} {demonym} {currency} to {currency}
How many {currency} are {code} {currency}?
What is the {noun} from {demonym} {currency} to UK {currency}?
{verb} {demonym} {noun} {words}
I {verb} in {demonym}. {prose}
how do you say {word} in {demonym}
A {noun} in the UK or the US, not in the EU
i {verb} my {noun} in the u.s. but {words}
U.S. {noun} and U.K. {noun} {words}
I was {words}. It was {words}, and then it {words}. Why?
It says {words}, but I {words}. How come?
I think someone {words}. My {noun} was {adj} when I {words}.
I'd like to know why {words}
Is there a {noun} for {words} or not
There is something {adj} with my {noun} and I can't {verb} it, what's going on?
Hi! I just {words} and my {noun} is {adj}. Am I {adj}?
my {noun} won't {verb}, i already {words}
do i have any {noun} on my {noun}
what's the {adj} way to {verb} {noun}
what {noun} should i {verb} for {words}
can you please tell me how {words}
i need you to {verb} my {noun} for {words}
could you {verb} {noun} at {date}
how many {noun} in a {noun}
when is my {noun} due
are you a {noun} or a {noun}
who made you
what is your name
what are you called
where were you born
change your name to {noun}
call my {noun}
read the {noun} to {noun}
i lost my {noun} in {noun}
thanks for the {noun}, goodbye
that's {adj}, {verb} it
roll a {noun}
my {noun}'s {noun}
let {noun} know that {words}
{noun} {noun} please
next {noun} is on {date}
"{word}" means {words}
{Word}'s {noun} or {Word} {noun}: {words}
So {words}, and {Word} {words}.
from {date} to {date}
book a table for {code} at {date}
the {noun} is from {date} until {date}, {words}
flight {code} {words}
how many calories are in {code} of {noun}
{code} {noun} and {code} of {word} {words}
a recipe for {noun} {word} with {word}
convert {code} to {code}
play {words} by {word} {word}
{Word}, my {noun} {words}
"""

# A few words of other languages around a name or an address, so that neither needs English.
OTHER_LANGUAGES = """
Mein Name ist {full} und ich wohne in der {street}.
Ich heiße {first}.
Sehr geehrte Frau {last}, vielen Dank für Ihre Nachricht.
Sehr geehrter Herr {last},
Mit freundlichen Grüßen\n{full}
Bitte schicken Sie das Paket an {full}, {address}.
Die Rechnung geht an {org}, {address}.
Herr {last} arbeitet bei {org} in {city}.
Wie kann ich meine Karte sperren?
Je m'appelle {full} et j'habite au {address}.
Bonjour {first}, merci pour votre message.
Madame {last}, veuillez trouver ci-joint la facture.
Cordialement,\n{full}
Mon adresse est {address}
Comment puis-je changer mon mot de passe ?
Me llamo {full} y vivo en {address}.
Hola {first}, gracias por su mensaje.
Estimado señor {last}: le escribo por la factura.
Saludos, {full}
Mi dirección es {address}
¿Cómo puedo cambiar mi tarjeta?
Mi chiamo {full}, abito in {address}
Gentile {full}, grazie per il suo ordine.
Cordiali saluti\n{full}
Indirizzo: {address}
Come posso cambiare la carta?
Meu nome é {full} e moro na {address}
Olá {first}, tudo bem?
Endereço: {address}
Mijn naam is {full} en ik woon op {address}.
Beste {first}, bedankt voor je bericht.
Met vriendelijke groet, {full}
Adres: {address}
Jag heter {full} och bor på {address}
Hej {first}, tack för mejlet.
Med vänlig hälsning {full}
Mit navn er {full}, og jeg bor på {address}
Kære {first}
Jeg heter {full}. Adressen er {address}
Minun nimeni on {full}, osoite {address}
Hei {first}, kiitos viestistä.
Nazywam się {full}, mieszkam: {address}
Szanowny Panie {last},
Jmenuji se {full}, bydlím na adrese {address}
Dobrý den, paní {last}
A nevem {full}, a címem {address}
Tisztelt {last} úr!
Adım {full}, adresim {address}
Sayın {full},
Numele meu este {full}, adresa: {address}
Меня зовут {full}, адрес: {address}
Уважаемый {full}!
Με λένε {full}, διεύθυνση {address}
Nama saya {full}, alamat {address}
私の名前は{full}です。住所は{address}です。
我叫{full}，住在{address}。
제 이름은 {full}입니다. 주소: {address}
اسمي {full} وعنواني {address}
"""

JSON_KEYS = {
    "full": "name full_name fullName customer customer_name recipient contact author user employee patient passenger holder owner assignee",
    "first": "first_name firstName given_name first vorname prenom",
    "last": "last_name lastName surname family_name last nachname",
    "address": "address shipping_address billingAddress addr deliver_to street_address home_address location adresse",
    "street": "street street1 address_line_1 line1 addressLine1 strasse",
    "city": "city town locality ort",
    "country": "country nation country_name",
    "org": "company organization employer org vendor merchant",
    "email": "email mail e_mail contact_email",
    "phone": "phone tel mobile phone_number",
    "code": "id order_id amount total zip postal_code quantity account iban reference",
    "date": "date created_at birthday due dob timestamp",
    "words": "description note comment subject query title message text summary",
    "noun": "type category status kind name label tag product item key role",
    "thing": "name product model brand vendor app",
    "job": "job title position occupation",
}


def lines(text: str) -> tuple[str, ...]:
    return tuple(line.replace("\\n", "\n") for line in text.strip().split("\n"))
