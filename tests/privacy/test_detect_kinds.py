"""Every kind that the structured detector knows: written examples that it finds, near misses that it leaves.

Secrets are put together here from their published prefix and random-looking filling; none was ever issued.
Numbers are those of python-stdnum's documentation, or computed for this table.
"""

import pytest
from stdnum import luhn
from stdnum.cn import ric

from gateway.privacy import checks
from gateway.privacy.detect import StructuredDetector
from gateway.privacy.patterns import CLASSES
from gateway.privacy.patterns.secrets import FORMATS
from router_policies.privacy import PrivacyClass

DETECTOR = StructuredDetector()


def mixed(size: int) -> str:
    return ("aB3dE7fG1hJ9kL2mN5pQ8rS4tU6vW0xY" * 6)[:size]


def hexed(size: int) -> str:
    return ("3f9a0c7be41d58266b0e" * 12)[:size]


def upper(size: int) -> str:
    return ("K7QX2MB9ZT4WN6HR" * 10)[:size]


UUID = "3f9a0c7b-e41d-5826-6b0e-3f9a0c7be41d"

# Kind -> one secret each way it is written.
SECRETS = {
    "aws_key": ["AKIA" + upper(16), "ASIA" + upper(16)],
    "github_token": ["ghp_" + mixed(36), "gho_" + mixed(36), "ghs_" + mixed(36), "github_pat_" + mixed(40)],
    "gitlab_token": [
        "glpat-" + mixed(20),
        "glptt-" + hexed(40),
        "GR1348941" + mixed(20),
        "gldt-" + mixed(20),
    ],
    "anthropic_key": ["sk-ant-" + "api03-" + mixed(80)],
    "openrouter_key": ["sk-or-v1-" + hexed(64)],
    "openai_key": ["sk-" + mixed(48), "sk-proj-" + mixed(60)],
    "google_key": ["AIza" + mixed(35), "GOCSPX-" + mixed(28), "ya29." + mixed(60)],
    "slack_token": ["xoxb-" + "1234567890-abcdefghij", "xapp-1-" + upper(11) + "-1234567890123-" + hexed(64)],
    "slack_webhook": ["hooks.slack.com/services/" + "T0AB1CD2E/B0AB1CD2E/" + mixed(24)],
    "discord_webhook": ["discord.com/api/webhooks/" + "123456789012345678/" + mixed(68)],
    "teams_webhook": [f"webhook.office.com/webhookb2/{UUID}@{UUID}/"],
    "discord_token": ["M" + mixed(23) + ".aB3dE7." + mixed(27)],
    "telegram_token": ["123456789:AA" + mixed(33)],
    "stripe_key": ["sk_live_" + mixed(24), "rk_test_" + mixed(24), "whsec_" + mixed(32)],
    "huggingface_token": ["hf_" + mixed(34), "api_org_" + "aBcDeFgHiJkLmNoPqR" + "sTuVwXyZaBcDeFgH"],
    "groq_key": ["gsk_" + mixed(52)],
    "perplexity_key": ["pplx-" + mixed(48)],
    "replicate_token": ["r8_" + mixed(37)],
    "xai_key": ["xai-" + mixed(80)],
    "nvidia_key": ["nvapi-" + mixed(64)],
    "langsmith_key": ["lsv2_pt_" + hexed(32) + "_" + hexed(10)],
    "pinecone_key": ["pcsk_" + mixed(70)],
    "digitalocean_token": ["dop_v1_" + hexed(64), "doo_v1_" + hexed(64)],
    "npm_token": ["npm_" + mixed(36)],
    "pypi_token": ["pypi-AgE" + "IcHlwaS5vcmc" + mixed(60)],
    "rubygems_key": ["rubygems_" + hexed(48)],
    "crates_token": ["cio" + mixed(32)],
    "nuget_key": ["oy2" + mixed(43).lower()],
    "clojars_token": ["CLOJARS_" + mixed(60).lower()],
    "docker_token": ["dckr_pat_" + mixed(27)],
    "artifactory_key": ["AKCp" + mixed(69)],
    "sendgrid_key": ["SG." + mixed(22) + "." + mixed(43)],
    "twilio_key": ["SK" + hexed(32)],
    "mailgun_key": ["key-" + hexed(32)],
    "mailchimp_key": [hexed(32) + "-us12", hexed(32) + "-us5"],
    "brevo_key": ["xkeysib-" + hexed(64) + "-" + mixed(16)],
    "shopify_token": ["shpat_" + hexed(32), "shpss_" + hexed(32)],
    "square_token": ["sq0atp-" + mixed(22), "EAAA" + mixed(60)],
    "braintree_token": ["access_token$production$" + mixed(16).lower() + "$" + hexed(32)],
    "facebook_token": ["EAAC" + mixed(60)],
    "twitter_token": ["A" * 22 + mixed(80)],
    "atlassian_token": ["ATATT3" + mixed(180), "ATBB" + mixed(32)],
    "linear_key": ["lin_api_" + mixed(40)],
    "notion_token": ["ntn_" + "12345678901" + mixed(35)],
    "figma_token": ["figd_" + mixed(40)],
    "postman_key": ["PMAK-" + hexed(24) + "-" + hexed(34)],
    "newrelic_key": ["NRAK-" + upper(27)],
    "sentry_token": ["sntryu_" + hexed(64)],
    "grafana_token": ["glsa_" + mixed(32) + "_" + hexed(8), "glc_" + mixed(60)],
    "databricks_token": ["dapi" + hexed(32)],
    "vault_token": ["hvs." + mixed(90), "hvb." + mixed(138)],
    "terraform_token": [mixed(14) + ".atlasv1." + mixed(67)],
    "doppler_token": ["dp.pt." + mixed(43), "dp.st.dev." + mixed(43)],
    "pulumi_token": ["pul-" + hexed(40)],
    "planetscale_token": ["pscale_tkn_" + mixed(43), "pscale_pw_" + mixed(43)],
    "fly_token": ["fo1_" + mixed(43), "fm2_" + mixed(80)],
    "netlify_token": ["nfp_" + mixed(36)],
    "render_key": ["rnd_" + mixed(28)],
    "supabase_key": ["sbp_" + hexed(40), "sb_secret_" + mixed(31)],
    "airtable_token": ["pat" + mixed(14) + "." + hexed(64)],
    "dropbox_token": ["sl." + mixed(140)],
    "easypost_key": ["EZAK" + mixed(54)],
    "flutterwave_key": ["FLWSECK_TEST-" + mixed(32) + "-X"],
    "frameio_token": ["fio-u-" + mixed(64)],
    "duffel_token": ["duffel_live_" + mixed(43)],
    "dynatrace_token": [
        "dt0c01." + "ABCDEFGHIJKLMNOPQRSTUVWX" + "." + "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" * 2
    ],
    "alibaba_key": ["LTAI" + mixed(20)],
    "tencent_key": ["AKID" + mixed(32)],
    "adobe_secret": ["p8e-" + mixed(32)],
    "age_key": ["AGE-SECRET-KEY-1" + "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L" + "QPZRY9X8GF2TVDW0S3JN54KHCE"],
    "onepassword_token": ["ops_eyJ" + mixed(150)],
    "contentful_token": ["CFPAT-" + mixed(43)],
    "cloudflare_key": ["v1.0-" + hexed(24) + "-" + hexed(146)],
    "mapbox_token": ["sk.eyJ" + mixed(60) + "." + mixed(22)],
    "okta_token": ["SSWS 00" + mixed(40)],
    "prefect_key": ["pnu_" + mixed(36)],
    "readme_key": ["rdme_" + mixed(70).lower()],
    "scalingo_token": ["tk-us-" + mixed(48)],
    "shippo_token": ["shippo_live_" + hexed(40)],
    "typeform_token": ["tfp_" + mixed(59)],
    "infracost_key": ["ico-" + mixed(32)],
    "lob_key": ["live_" + hexed(35)],
    "plaid_token": ["access-production-" + UUID],
    "hubspot_token": ["pat-na1-" + UUID],
    "sourcegraph_token": ["sgp_" + hexed(40)],
    "yandex_key": ["AQVN" + mixed(36)],
    "tailscale_key": ["tskey-auth-" + mixed(16) + "-" + mixed(32)],
    "buildkite_token": ["bkua_" + hexed(40)],
    "intra42_secret": ["s-s4t2ud-" + hexed(64)],
    "gocardless_token": ["live_" + mixed(40)],
    "azure_secret": ["aB3" + "8Q~" + mixed(34)],
    "private_key": ["PuTTY-User-Key-File-2: ssh-rsa", "-----BEGIN OPENSSH PRIVATE " + "KEY-----"],
}

# Kind -> as people write it. In the second table the word before it is what tells.
NUMBERS = {
    "us_itin": ["912-90-3456"],
    "br_cnpj": ["16.727.230/0001-97"],
    "se_personnummer": ["880320-0016", "19880320-0016"],
    "is_kennitala": ["450401-3150"],
    "lv_personas_kods": ["161175-19997"],
    "cz_rodne_cislo": ["710319/2745"],
    "kr_rrn": ["971013-9019902"],
    "sg_nric": ["S1234567D", "G1234567X"],
    "be_rijksregister": ["85.07.30-033.28", "85 07 30 033 28"],
    "ch_ahv": ["756.9217.0769.85"],
    "ru_snils": ["112-233-445 95"],
    "cn_resident_id": ["360426199101010071"],
    "hk_id": ["A123456(3)"],
    "my_nric": ["770305-02-1234"],
    "th_id": ["1-2345-45678-78-1"],
    "pk_cnic": ["34201-0891231-8"],
    "ar_cuit": ["20-05536168-2"],
    "cl_rut": ["12.531.909-2"],
    "do_cedula": ["001-1391820-5"],
    "in_pan": ["ACUPA7085R"],
    "in_gstin": ["27AAPFU0939F1ZV"],
    "mx_curp": ["BOXW310820HNERXN09"],
    "mx_rfc": ["VACE460910SX6", "VACE-460910-SX6"],
    "uk_nino": ["AB 12 34 56 C", "AB123456C"],
    "no_fodselsnummer": ["15108695088", "151086 95088"],
    "za_id": ["7503305044089"],
    "ro_cnp": ["1630615123457"],
    "si_emso": ["0101006500006"],
    "bank_account": ["01-0242-0100194-00"],
    "crypto_wallet": [
        "1NEDqZPvTWRaoho48qXuLLsrYomMXPABfD",
        "bc1qardv855yjngspvxuttq897aqca3lxju2y69jce",
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh",
    ],
    "mac_address": ["00:1a:2b:3c:4d:5e", "00-1A-2B-3C-4D-5E", "001a.2b3c.4d5e"],
    "url": ["https://example.com/a?b=c", "www.example.org", "shop.example.com.br"],
}
AFTER_A_WORD = {
    "us_ein": "FEIN 12-3456789",
    "ca_sin": "social insurance number: 123-456-782",
    "uk_utr": "UTR 1955839661",
    "ie_pps": "PPSN 6433435F",
    "de_rentenversicherung": "Rentenversicherungsnummer 65 170839 J 003",
    "at_svnr": "SVNR 1237 010180",
    "at_tin": "Steuernummer 59-119/9013",
    "pt_nif": "NIF: 501 964 843",
    "pt_cc": "citizen card 00000000 0 ZZ4",
    "gr_amka": "AMKA 01013099997",
    "gr_afm": "AFM 094259216",
    "dk_cpr": "CPR-nr. 211062-5629",
    "ee_isikukood": "isikukood 36805280109",
    "lt_asmens_kodas": "asmens kodas 33309240064",
    "pl_nip": "NIP 8567346215",
    "hu_taj": "TAJ szam: 111 111 110",
    "bg_egn": "EGN 8032056031",
    "hr_oib": "OIB 33392005961",
    "rs_pib": "PIB 101134702",
    "tr_kimlik": "TCKN 17291716060",
    "ru_inn": "INN 1234567894",
    "ua_rntrc": "RNOKPP 1759013776",
    "jp_my_number": "My Number 1234 5678 9018",
    "tw_id": "national ID A123456789",
    "id_nik": "NIK 3171011708450001",
    "au_tfn": "TFN 123 456 782",
    "au_abn": "ABN 83 914 571 673",
    "nz_ird": "IRD 49-098-576",
    "eg_tax": "Egyptian tax number 100-531-385",
    "il_id": "Teudat Zehut 3933742-3",
    "ar_dni": "DNI 20.123.456",
    "pe_dni": "CUI 10117410-2",
    "co_nit": "NIT 213.123.432-1",
    "co_cedula": "cedula 52.234.567",
    "ec_cedula": "cedula 171430710-3",
    "uy_rut": "RUT 21-100342-001-7",
    "national_id": "Personalausweis L01X123456",
    "passport": "Passport No. C01X00T47",
    "driver_licence": "driver's license number is U62928788557186",
    "health_id": "MRN: 00482913",
    "us_npi": "NPI 1245319599",
    "us_dea": "DEA number AB1234563",
    "us_bank_routing": "routing number 111000025",
    "bank_account": "account number 0072837465",
    "uk_sort_code": "sort code 20-37-16",
    "au_bsb": "BSB 062-812",
    "in_ifsc": "IFSC HDFC0001234",
    "bic": "SWIFT code: DEUTDEFF500",
    "date_of_birth": "date of birth: 12/03/1984",
    "password": "password: hunter22!",
    "assigned_secret": 'api_key = "' + mixed(32) + '"',
}
IN_OTHER_LANGUAGES = {
    "passport": ["Reisepass-Nr. C01X00T47", "passeport n° 12AB34567", "Pasaporte: XDB123456"],
    "driver_licence": [
        "Führerschein B072RRE2I55",
        "permis de conduire 123456789012",
        "patente di guida U1M123456X",
    ],
    "health_id": ["Krankenversicherungsnummer A123456780", "carte vitale 1234567890"],
    "date_of_birth": ["geboren am 3.12.1984", "née le 12 mars 1984", "fecha de nacimiento 12/03/1984"],
    "bank_account": ["Kontonummer 0532013000"],
    "phone": ["Téléphone : 60 56 85 91", "Handy 99 668472", "28-64-66-98 office"],
}
FOUND = [(kind, text) for table in (SECRETS, NUMBERS) for kind, texts in table.items() for text in texts]


def kinds(text: str) -> set[str]:
    return {finding.kind for finding in DETECTOR.scan(text)}


@pytest.mark.parametrize(("kind", "text"), FOUND)
def test_finds(kind: str, text: str) -> None:
    """The identifier, from its first character to its last, alone and in a sentence."""
    for before, after in (("", ""), ("see ", " please"), ("(", ")")):
        spans = [(f.start, f.end) for f in DETECTOR.scan(before + text + after) if f.kind == kind]
        assert (len(before), len(before) + len(text)) in spans


@pytest.mark.parametrize(("kind", "text"), AFTER_A_WORD.items())
def test_finds_after_a_word(kind: str, text: str) -> None:
    """With its word it is found, without it the number stays unnamed."""
    [finding] = [f for f in DETECTOR.scan(f"the {text} of mine") if f.kind == kind]
    number = f"the {text} of mine"[finding.start : finding.end]
    assert text.rstrip('"').endswith(number)
    assert kind not in kinds(number)


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, texts in IN_OTHER_LANGUAGES.items() for text in texts]
)
def test_words_of_several_languages(kind: str, text: str) -> None:
    """Documents, dates of birth and telephones are named in more languages than English."""
    assert kind in kinds(text)


def wrong(number: str) -> str:
    """`number` with its last digit changed."""
    place = max(place for place, character in enumerate(number) if character.isdigit())
    return number[:place] + str((int(number[place]) + 1) % 10) + number[place + 1 :]


CHECKED = ["br_cnpj", "cz_rodne_cislo", "kr_rrn", "be_rijksregister", "ch_ahv", "ru_snils", "cn_resident_id"]
CHECKED += [
    "th_id",
    "ar_cuit",
    "cl_rut",
    "do_cedula",
    "no_fodselsnummer",
    "za_id",
    "ro_cnp",
    "si_emso",
    "hk_id",
]
CHECKED += ["ca_sin", "gr_amka", "ee_isikukood", "lt_asmens_kodas", "pl_nip", "hu_taj", "bg_egn", "hr_oib"]
CHECKED += [
    "tr_kimlik",
    "ru_inn",
    "ua_rntrc",
    "jp_my_number",
    "tw_id",
    "au_tfn",
    "au_abn",
    "nz_ird",
    "us_npi",
]
CHECKED += ["us_dea", "us_bank_routing", "pt_nif", "at_svnr", "mx_curp", "is_kennitala"]


@pytest.mark.parametrize("kind", CHECKED)
def test_a_wrong_check_digit_is_none(kind: str) -> None:
    """One digit off, and it is no longer of that kind."""
    text = NUMBERS[kind][0] if kind in NUMBERS else AFTER_A_WORD[kind]
    assert kind not in kinds(wrong(text))


@pytest.mark.parametrize("kind", sorted(SECRETS.keys() - {"private_key", "azure_secret"}))
def test_half_a_secret_is_none(kind: str) -> None:
    """The prefix and a few characters are what documentation shows; they raise nothing."""
    for text in SECRETS[kind]:
        assert kind not in kinds(text[:14])


def test_how_many() -> None:
    """At least 60 providers' formats and 25 countries."""
    assert len({begins for _, begins, _ in FORMATS}) >= 60
    assert len({kind for kind, _, _ in FORMATS}) >= 60
    countries = {kind[:2] for kind in CLASSES if kind[2:3] == "_"}
    assert len(countries) >= 25


def test_ordinary_numbers_stay_ordinary() -> None:
    """Orders, prices, times, versions and counts: nothing above internal."""
    ordinary = [
        "Order 10045829 shipped on 2024-03-12 at 10:32:11, 3 items, total 1,249.00 EUR",
        "commit 4f2a91c, build 20240312.4, version 3.11.7-rc1, ISBN 978-3-16-148410-0",
        "row 1048576 of 12 345 678, offset 0x7fff5694dc58, epoch 1764050000000",
        "latitude 52.5200066, longitude 13.404954; 1920x1080 at 59.94 Hz",
        "the number of users rose from 120 000 to 250 000 between 2019 and 2021",
        "set password to something you remember; token = get_token(user, scope)",
        "max_tokens=4096, temperature=0.2, seed=12345678",
        "password = os.environ['PASSWORD'], secret: ${SECRET_NAME_FROM_VAULT_1}",
    ]
    for text in ordinary:
        assert [f.kind for f in DETECTOR.scan(text) if f.privacy > PrivacyClass.INTERNAL] == [], text


def test_a_check_that_cannot_tell_says_no() -> None:
    """python-stdnum raises KeyError for a county that does not exist; the scan goes on."""
    with pytest.raises(KeyError):
        ric.is_valid("517438453005249964")
    assert kinds("517438453005249964, 4111111111111111") == {"payment_card"}


def test_luhn_is_that_of_stdnum() -> None:
    """The quick check digit agrees with the slow one."""
    from_stdnum = [number for number in range(10_000_000, 10_002_000) if luhn.is_valid(str(number))]
    assert [number for number in range(10_000_000, 10_002_000) if checks.luhn(str(number))] == from_stdnum
