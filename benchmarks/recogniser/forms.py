"""How addresses and organisations are written, in pieces: what the generator puts together."""

from faker.providers.address import Provider


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.replace("\n", " ").split("|"))


# Streets whose number comes first, and those where it comes last; {} is a name.
NUMBER_FIRST = _parts("""
{} Street | {} St | {} St. | {} Road | {} Rd | {} Avenue | {} Ave | {} Lane | {} Drive | {} Dr. | {} Court |
{} Close | {} Terrace | {} Way | {} Boulevard | {} Blvd | {} Crescent | {} Square | {} Turnpike | {} Parkway
| {} Gardens | {} Place | {} Row | {} Hill | {} Grove | {} Mews | {} Pike | {} Heights | {} Coves | {}
Squares | {} Streets | {} Ridge | {} Trail | rue {} | rue de {} | avenue {} | boulevard {} | place {} |
allée des {} | chemin de {}
""")
NUMBER_LAST = _parts("""
{}strasse | {}straße | {}str. | {} Str. | {}gasse | {}weg | {}platz | {} Allee | {}ring | {}straat | {}laan
| {}singel | {}gracht | {}plein | {}gatan | {}vägen | {}vegen | {}veien | {}gata | {}gade | {}vej | {}vænget
| {}katu | {}tie | {}kuja | {}polku | {} utca | {} út | {} tér | ul. {} | ulica {} | {} ulica | {} cesta |
al. {} | os. {} | {}ova | {}ská | {} tänav | {} iela | {} gatvė | {} Sokak | {} Caddesi | {}gränd | {}stígur
| {}gata | {}braut | {}tún | {}hlíð | Rue du {} | via {} | Via {} | Piazza {} | Corso {} | Viale {} | Calle
{} | C/ {} | Avenida {} | Av. {} | Plaza {} | Paseo {} | Rua {} | Travessa {} | Largo {} | Praça {} | Quadra
{} | Strada {} | Jalan {} | Jl. {} | ул. {} | οδός {} | Οδός {}
""")
STREETS = (*((street, True) for street in NUMBER_FIRST), *((street, False) for street in NUMBER_LAST))
UNITS = _parts("""
Apt. {} | Apt {} | Suite {} | Ste {} | Unit {} | Flat {} | # {} | Floor {} | Room {} | Bldg {} | Apartment
{} | app. {} | lgh {} | Top {} | {}. OG | {}. Stock | esc. {} | piso {} | Bte {} | bus {} | m. {} | as. {} |
Box {}
""")  # the first six are the commonest
ORG_PATTERNS = _parts("""
University of {} | {} University | Bank of {} | {} City Council | {} Hospital | {} High School | The {}
Times | Museum of {} | {} Chamber of Commerce | {} Country Club | Church of {} | Ministry of {} | {}
Football Club
""")
COUNTRIES = tuple(c for c in Provider.countries if "(" not in c and len(c) < 30)
LOCAL_COUNTRIES = """
Deutschland Österreich Schweiz España Italia Brasil Polska Česko Slovensko Magyarország Suomi Sverige Norge
Danmark Ísland Nederland België Belgique Türkiye Россия Україна Ελλάδα USA UK U.S.A. England Scotland Wales
Slovenia Estonia France México Perú Holland Ireland
""".split()
ORG_WORDS = """
Global United First National General Pacific Atlantic Northern Southern Western Digital Advanced Applied
Modern Prime Summit Pioneer Liberty Golden Silver Blue Green Red Star Sun Moon River Mountain Ocean Eagle
Lion Bright Smart Clear Open True Alpha Delta Omega Nova Terra Aqua Solar Data Cloud Cyber Bio Med Agri Auto
Aero Euro Trans Inter Micro
""".split()
ORG_KINDS = _parts("""
Inc | Inc. | LLC | Ltd | Ltd. | Limited | PLC | plc | Corp | Corp. | Corporation | Company | Co. | Group |
Holdings | Partners | Associates | Industries | Systems | Solutions | Technologies | Labs | Services |
Consulting | Foundation | Institute | Bank | Insurance | Airlines | Media | Energy | Logistics | Foods |
Motors | Pharma | Ventures | Capital | Stores | Records | Studios | GmbH | AG | KG | SE | S.A. | SA | SARL |
S.r.l. | SpA | BV | B.V. | NV | AB | AS | A/S | Oy | OÜ | Kft. | Zrt. | sp. | d.o.o. | s.r.o. | a.s. | Ltda.
| S.L. | Pty
""")
COINED_STARTS = "Ver Micro Inno Ava Lum Zen Qua Syn Neo Tri Omni Ver Pay Net Xen Kal".split()
COINED_ENDS = "soft tech ify ly era ix ex on io bit net sys com max fero zon ara".split()
