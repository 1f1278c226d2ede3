"""How to reach a person or a machine: e-mail, telephone, addresses in a network, links."""

from gateway.privacy import checks, phones
from gateway.privacy.checks import always
from gateway.privacy.patterns.shape import group, known, scan

# "?" stands for every character beyond ASCII (see detect.py). What stands before the "@" has no bound: it
# is one run, read once, and counting at each place where one may begin would need states without end.
_EMAIL = known(
    "email",
    r"((?:\b[A-Za-z0-9_]|\?)[A-Za-z0-9._%+?'-]*@(?:[A-Za-z0-9?-]{1,63}\.){1,8}[A-Za-z?]{2,24})",
    checks.emails,
)
_URL_CREDENTIALS = known(
    "url_credentials",
    r"([A-Za-z][A-Za-z0-9+.-]*://[^\s/@:'\"<>]{0,64}:[^\s/@'\"<>]{1,128}@[A-Za-z0-9\[?])",
)

_GENERIC_TLDS = (
    "com|org|net|edu|gov|mil|int|info|biz|name|app|dev|io|ai|co|me|tv|cloud|online|site|store|shop|tech|xyz"
)
_COUNTRY_TLDS = (
    "ac|ad|ae|af|ag|al|am|ar|at|au|az|ba|bd|be|bg|bh|bo|br|by|ca|cc|ch|ci|cl|cm|cn|cr|cu|cy|cz|de|dk|do|dz|ec|ee"
    "|eg|es|eu|fi|fj|fo|fr|ge|gg|gh|gl|gr|gt|hk|hn|hr|hu|id|ie|il|im|in|iq|ir|is|it|je|jm|jo|jp|ke|kg|kh|kr|kw|kz"
    "|la|lb|li|lk|lt|lu|lv|ly|ma|mc|md|mk|mm|mn|mt|mu|mx|my|ng|ni|nl|no|np|nz|om|pa|pe|ph|pk|pl|pr|pt|py|qa|ro|rs"
    "|ru|sa|se|sg|si|sk|sn|su|sv|th|tm|tn|tr|tt|tw|ua|ug|uk|us|uy|uz|ve|vn|ws|za|zm|zw"
)
_LINK = scan(
    known("url", r"(?i)\b((?:https?|ftp)://[^\s<>\"'`|\\^{}]{3,})", checks.urls, 0.9),
    known(
        "url",
        rf"(?i)(?:^|[^A-Za-z0-9@._/-])((?:[a-z0-9](?:[a-z0-9-]{{0,40}})\.){{1,4}}"
        rf"(?:{_GENERIC_TLDS}|{_COUNTRY_TLDS})(?:/[^\s<>\"'`|\\^{{}}]*)?)(?:[^A-Za-z0-9@_(=-]|$)",
        checks.domains,
        0.5,
    ),
)

NETWORK = (
    known(
        "ip_address",
        r"\b((?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d))\b",
        confidence=0.6,
    ),
    known(
        "mac_address",
        r"\b([0-9A-Fa-f]{2}(?:(?::[0-9A-Fa-f]{2}){5}|(?:-[0-9A-Fa-f]{2}){5}))\b",
        checks.mac,
        0.8,
    ),
    known("mac_address", r"\b([0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4})\b", checks.mac, 0.6),
    known("ip_address", r"\b([0-9A-Fa-f]{3,4}(?::[0-9A-Fa-f]{0,4}){2,7})", checks.ipv6, 0.8),
)

_EXTENSION = r"(?: ?(?:x|ext\.?) ?\d{1,5})?"
_CALL = (
    r"(?:(?:(?:tele|cell|i)?phone|t[e?]l|t[e?]l[e?](?:fon|phone|fono)[eo]?|handy|gsm|m[o?]vil|mobiel|mobil|mobile"
    r"|cell|cellulare|celular|fax|whatsapp|sms|dial|hotline|helpline"
    r"|(?:call(?:ing|ed)?|reach(?:ed)?|text(?:ed)?|contact|ring) (?:me|us|him|her|them|back|at|on)"
    r"|answering (?:at|on)|(?:messages?|sms|texts) (?:to|from|on|at))\b[^0-9+(]{0,24}"
    # What may stand before other numbers as well, unless nothing comes between.
    r"|(?:desk|office|home|work|contact|registered|number)\b[^0-9A-Za-z+(]{1,4})"
)
PHONES = scan(
    known("phone", r"(\+[1-9](?:[ ./()-]{0,3}\d){7,14}" + _EXTENSION + r")\b", checks.phones),
    known("phone", r"\b(00[1-9]\d{0,2}[ ./(-](?:[ ./()-]{0,2}\d){6,12}(?:x\d{1,5})?)\b", always),
    known(
        "phone",
        r"((?:\b1[ .-])?(?:\([2-9]\d{2}\) ?-?|\b[2-9]\d{2}[ .-])[2-9]\d{2}[ .-]\d{4}" + _EXTENSION + r")\b",
        always,
        0.8,
    ),
    known(
        "phone",
        r"((?:\(0[1-9]\d{0,4}\)|\b0[1-9]\d{0,4})(?:[ ./-]{1,2}\d{2,8}){1,4})\b",
        checks.national_phones,
        0.7,
    ),
    known(
        "phone",
        rf"(?i)\b{_CALL}([+(]{{0,2}}\d(?:[ ./()-]{{0,2}}\d){{6,13}}(?:x\d{{1,5}})?)\b",
        checks.phones,
        0.7,
    ),
    known(
        "phone",
        r"(?i)\b(\d(?:[ ./()-]{0,2}\d){6,13})[ ,-]{1,3}"
        r"\(?(?:office|fax|mobile|cell|home|work|desk|tel|phone)\b",
        checks.phones,
        0.7,
    ),
    known("phone", r"\b(0[1-9]\d{8,9})\b", phones.trunk, 0.5),
    hint=r"\d(?:[ ./()-]{0,3}\d){6}",
)
# As no other numbers are grouped, and assigned where they are.
GROUPED_PHONES = scan(
    known("phone", r"(?:^|[^0-9+.,:/-])(\d{1,4}(?:[ .-]\d{2,4}){2,})\b", phones.grouped, 0.5),
    hint=r"\d[ .-]\d{2,4}[ .-]\d\d",
    disjoint=True,
)

# Seven digits within one identifier, escaped line breaks still being what they were.
DIGITS = r"\d(?:(?:[ _\t./()-]|\\[nrt]){0,3}\d){6}"
HEX = "[0-9A-Fa-f]"

ADDRESSES = group(scan(_URL_CREDENTIALS, _EMAIL, hint="@"), sign="@", parted=False)
NETWORK_SIGN = rf"\d\.\d{{1,3}}\.\d|:{HEX}{{0,4}}:|{HEX}{{2}}-{HEX}{{2}}-{HEX}|{HEX}{{4}}\.{HEX}{{4}}\."
LINKS = group(_LINK, sign=r"\.", parted=False)
