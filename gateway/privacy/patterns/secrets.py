"""Keys, tokens and passwords. The shapes are their issuers' published ones, as in gitleaks."""

from gateway.privacy import checks
from gateway.privacy.patterns.payment import WALLETS
from gateway.privacy.patterns.shape import group, known, scan

# A secret's left edge: a word boundary, or an escaped line break as in JSON within JSON.
_EDGE = r"(?:\b|_|\\[nrt])"
_W = "[A-Za-z0-9_-]"
_A = "[A-Za-z0-9]"
_X = "[a-f0-9]"
_UUID = rf"{_X}{{8}}-{_X}{{4}}-{_X}{{4}}-{_X}{{4}}-{_X}{{12}}"

# Kind, how it begins, how it goes on. Long enough for the sign RUN, unless SHORT says otherwise.
FORMATS: tuple[tuple[str, str, str], ...] = (
    ("aws_key", "AKIA|ASIA|ABIA|ACCA", r"[A-Z0-9]{16}\b"),
    ("github_token", "gh[pousr]_", rf"{_A}{{36,}}"),
    ("github_token", "github_pat_", "[A-Za-z0-9_]{22,}"),
    ("gitlab_token", "glpat-|gldt-|glrt-|glcbt-|glsoat-|glffct-|glimt-|glft-|glagent-", rf"{_W}{{20,}}"),
    ("gitlab_token", "glptt-", rf"{_X}{{40}}"),
    ("gitlab_token", "GR1348941", rf"{_W}{{20}}"),
    ("anthropic_key", "sk-ant-", rf"{_W}{{20,}}"),
    ("openrouter_key", "sk-or-v1-", rf"{_X}{{64}}"),
    ("openai_key", "sk-", rf"(?:(?:proj|svcacct|admin)-{_W}{{20,}}|{_A}{{20,}})"),
    ("google_key", "AIza", rf"{_W}{{35}}"),
    ("google_key", "GOCSPX-", rf"{_W}{{28}}"),
    ("google_key", r"ya29\.", rf"{_W}{{20,}}"),
    ("slack_token", "xox[abeprs]-", "[A-Za-z0-9-]{10,}"),
    ("slack_token", "xapp-", r"\d-[A-Z0-9]{6,20}-\d{6,20}-[a-f0-9]{32,}"),
    ("slack_webhook", r"hooks\.slack\.com/(?:services|workflows|triggers)/", "[A-Za-z0-9/]{20,}"),
    ("discord_webhook", r"discord(?:app)?\.com/api/webhooks/", rf"\d{{17,20}}/{_W}{{60,}}"),
    ("teams_webhook", r"webhook\.office\.com/webhookb2/", rf"{_UUID}@{_UUID}/"),
    ("discord_token", "[MNO][A-Za-z0-9]{23,25}", rf"\.{_W}{{6}}\.{_W}{{27,38}}"),
    ("telegram_token", r"\d{8,10}:AA", rf"{_W}{{32,33}}"),
    ("stripe_key", "[sr]k_(?:live|test)_", rf"{_A}{{16,}}"),
    ("stripe_key", "whsec_", rf"{_A}{{24,}}"),
    ("huggingface_token", "hf_", rf"{_A}{{30,}}"),
    ("huggingface_token", "api_org_", "[A-Za-z]{34}"),
    ("groq_key", "gsk_", rf"{_A}{{48,}}"),
    ("perplexity_key", "pplx-", rf"{_A}{{40,}}"),
    ("replicate_token", "r8_", rf"{_A}{{37}}"),
    ("xai_key", "xai-", rf"{_A}{{70,}}"),
    ("nvidia_key", "nvapi-", rf"{_W}{{60,}}"),
    ("langsmith_key", "lsv2_(?:pt|sk)_", rf"{_X}{{32}}_{_X}{{10}}"),
    ("pinecone_key", "pcsk_", "[A-Za-z0-9_]{50,}"),
    ("digitalocean_token", "do[opr]_v1_", rf"{_X}{{64}}"),
    ("npm_token", "npm_", rf"{_A}{{36}}"),
    ("pypi_token", "pypi-AgE", rf"{_W}{{50,}}"),
    ("rubygems_key", "rubygems_", rf"{_X}{{48}}"),
    ("crates_token", "cio", rf"{_A}{{32}}\b"),
    ("nuget_key", "oy2", r"[a-z0-9]{43}\b"),
    ("clojars_token", "CLOJARS_", "[a-z0-9]{60}"),
    ("docker_token", "dckr_(?:pat|oat)_", rf"{_W}{{27,}}"),
    ("artifactory_key", "AKCp", rf"{_A}{{60,}}"),
    ("sendgrid_key", r"SG\.", rf"{_W}{{22}}\.{_W}{{43}}"),
    ("twilio_key", "SK", rf"{_X}{{32}}\b"),
    ("mailgun_key", "key-", rf"{_X}{{32}}\b"),
    ("mailchimp_key", rf"{_X}{{32}}-us", r"\d{1,2}"),
    ("brevo_key", "xkeysib-", rf"{_X}{{64}}-{_A}{{16}}"),
    ("shopify_token", "shp(?:at|ca|pa|ss|ua)_", "[a-fA-F0-9]{32}"),
    ("square_token", "sq0(?:atp|csp|idp)-", rf"{_W}{{22,}}"),
    ("square_token", "EAAA", rf"{_W}{{60}}"),
    ("braintree_token", r"access_token\$(?:production|sandbox)\$", r"[a-z0-9]{16}\$[a-f0-9]{32}"),
    ("facebook_token", "EAA[MC]", rf"{_A}{{20,}}"),
    ("twitter_token", "A{22}", "[A-Za-z0-9%]{60,}"),
    ("atlassian_token", "ATATT3|ATCTT3|ATBB", r"[A-Za-z0-9_-]{24,}[A-Za-z0-9_=-]*"),
    ("linear_key", "lin_(?:api|oauth)_", rf"{_A}{{40}}"),
    ("notion_token", "ntn_", rf"\d{{11}}{_A}{{35}}"),
    ("figma_token", "fig[duoh]_", rf"{_W}{{40}}"),
    ("postman_key", "PMAK-", rf"{_X}{{24}}-{_X}{{34}}"),
    ("newrelic_key", "NR(?:AK|II|JS|RA|SP|IQ)-", rf"{_W}{{19,}}"),
    ("sentry_token", "sntrys_eyJ|sntryu_", r"[A-Za-z0-9+/_-]{60,}"),
    ("grafana_token", "glsa_", rf"{_A}{{32}}_{_X}{{8}}"),
    ("grafana_token", "glc_", r"[A-Za-z0-9+/]{32,}"),
    ("databricks_token", "dapi", rf"{_X}{{32}}\b"),
    ("vault_token", r"hv[sbr]\.", rf"{_W}{{24,}}"),
    ("terraform_token", rf"{_A}{{14}}\.atlasv1\.", rf"{_W}{{60,}}"),
    ("doppler_token", r"dp\.(?:pt|st|sa|ct|scim|audit)\.", rf"(?:{_W}{{1,40}}\.)?{_A}{{40,44}}"),
    ("pulumi_token", "pul-", rf"{_X}{{40}}"),
    ("planetscale_token", "pscale_(?:tkn|pw|oauth)_", rf"{_W}{{32,}}"),
    ("fly_token", "fo1_|fm[12][a-z]?_", r"[A-Za-z0-9+/_-]{43,}"),
    ("netlify_token", "nfp_", rf"{_A}{{36}}"),
    ("render_key", "rnd_", rf"{_A}{{28,}}"),
    ("supabase_key", "sbp_", rf"{_X}{{40}}"),
    ("supabase_key", "sb_secret_", rf"{_W}{{22,}}"),
    ("airtable_token", rf"pat{_A}{{14}}\.", rf"{_X}{{64}}"),
    ("dropbox_token", r"sl\.(?:u\.)?", rf"{_W}{{130,}}"),
    ("easypost_key", "EZ[AT]K", rf"{_A}{{54}}"),
    ("flutterwave_key", "FLWSECK(?:_TEST)?-", rf"{_A}{{32}}-X"),
    ("frameio_token", "fio-u-", rf"{_W}{{64}}"),
    ("duffel_token", "duffel_(?:test|live)_", rf"{_W}{{43}}"),
    ("dynatrace_token", r"dt0[a-z]\d\d\.", r"[A-Z2-7]{24}\.[A-Z2-7]{64}"),
    ("alibaba_key", "LTAI", rf"{_A}{{20}}\b"),
    ("tencent_key", "AKID", rf"{_A}{{32}}\b"),
    ("adobe_secret", "p8e-", r"[A-Za-z0-9_-]{32}\b"),
    ("age_key", "AGE-SECRET-KEY-1", "[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),
    ("onepassword_token", "ops_eyJ", r"[A-Za-z0-9+/_-]{100,}"),
    ("contentful_token", "CFPAT-", rf"{_W}{{43}}"),
    ("cloudflare_key", r"v1\.0-", rf"{_X}{{24}}-{_X}{{100,}}"),
    ("mapbox_token", r"sk\.eyJ", rf"{_W}{{20,}}\.{_W}{{20,}}"),
    ("okta_token", r"SSWS 00", rf"{_W}{{40}}"),
    ("prefect_key", "pnu_", "[A-Za-z0-9]{36}"),
    ("readme_key", "rdme_", "[a-z0-9]{70}"),
    ("scalingo_token", "tk-us-", rf"{_W}{{48}}"),
    ("shippo_token", "shippo_(?:live|test)_", rf"{_X}{{40}}"),
    ("typeform_token", "tfp_", rf"{_W}{{40,}}"),
    ("infracost_key", "ico-", rf"{_A}{{32}}"),
    ("lob_key", "(?:live|test)_(?:pub_)?", rf"{_X}{{31,35}}\b"),
    ("plaid_token", "access-(?:sandbox|development|production)-", _UUID),
    ("hubspot_token", "pat-(?:na|eu|ap)[0-9]-", _UUID),
    ("sourcegraph_token", "sgp_", r"(?:[a-fA-F0-9]{16}_)?[a-fA-F0-9]{40}"),
    ("yandex_key", "AQVN", rf"{_W}{{35,38}}"),
    ("tailscale_key", "tskey-(?:auth|api|client|scim|webhook)-", rf"{_A}{{11,20}}-{_A}{{17,}}"),
    ("buildkite_token", "bk[ucp]a_", rf"{_X}{{40}}"),
    ("intra42_secret", "s-s4t2(?:ud|af)-", rf"{_X}{{64}}"),
    ("gocardless_token", "live_", rf"{_W}{{40}}"),
    ("connection_string", "(?i:accountkey|sharedaccesskey)=", "[A-Za-z0-9+/]{20,}"),
)

# Keys and tokens are long, and so is what base64 hides.
RUN = r"[A-Za-z0-9+/_-]{20}"

_KEYS = scan(
    *(known(kind, f"{_EDGE}((?:{begins}){goes_on})") for kind, begins, goes_on in FORMATS),
    # By what they begin with, and one character more.
    first=f"{_EDGE}(?:{'|'.join(begins for _, begins, _ in FORMATS)})[A-Za-z0-9$%.{{+/_-]",
)
_OTHERS = scan(
    known("private_key", r"(-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----)"),
    known("private_key", r"(PuTTY-User-Key-File-\d: [a-z0-9-]{3,30})"),
    known(
        "aws_key",
        r"(?i:secret_?access_?key|aws_?secret(?:_?key)?)[^A-Za-z0-9/+]{1,8}([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+]|$)",
    ),
    known("azure_secret", r"\b([A-Za-z0-9_~.-]{3}\dQ~[A-Za-z0-9_~.-]{31,34})"),
)
_ASSIGNED = r"[\"'`]?(?:\s{0,3}(?:=>|:=|[:=])\s{0,3}|\n\n)[\"'`]?"
_ASSIGNMENTS = scan(
    known(
        "assigned_secret",
        r"(?i)(?:api[ _-]?key|access[ _-]?key|secret|token|credential|auth|bearer)s?[A-Za-z0-9_.-]{0,16}"
        rf"(?:{_ASSIGNED}(?:bearer )?|\b )({RUN}[A-Za-z0-9+/_=.~-]{{0,180}})",
        checks.assigned,
        0.7,
    )
)
ANNOUNCING = (  # words that announce one
    r"passw(?:or)?d|passwd|pwd|passphrase|passwort|kennwort|contrase[n?]a|mot de passe|senha|wachtwoord"
)
PASSWORDS = scan(
    known(
        "connection_string",
        r"(?i)(;\s?(?:password|pwd)\s?=\s?[^;\s'\"]{3,100}|\b(?:password|pwd)=[^;\s'\"]{3,100};)",
    ),
    known(
        "password",
        rf"(?i)(?:{ANNOUNCING})(?:{_ASSIGNED}| (?:is|ist|est|es):? [\"'`]?)"
        r"([^\s\"'`<>,;(){}\[\]]{6,100})",
        checks.passwords,
        0.7,
    ),
)

GROUPS = (
    group(
        _KEYS,
        _OTHERS,
        _ASSIGNMENTS,
        WALLETS,
        sign=rf"{RUN}|PRIVATE KEY|xox[abeprs]-|User-Key|\dQ~",
        parted=False,
    ),
    group(
        scan(known("jwt", r"(eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?)")),
        sign=r"\.eyJ",
        parted=False,
    ),
)
