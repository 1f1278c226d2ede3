"""Dates of birth and codes of banks: what no digits give away, only the words before them."""

from stdnum import bic

from gateway.privacy.checks import whole
from gateway.privacy.patterns.shape import known

_MONTH = (
    r"(?:jan|feb|f.v|mar|m.r|apr|avr|abr|may|mai|mag|maj|jun|juin|giu|jul|juil|lug|aug|ao|ago|sep|set|oct|okt|ott|out"
    r"|nov|dec|d.c|dez|dic|des|ene|gen)[a-z?]{0,8}\.?"
)
_DATE = (
    r"(?:19|20)\d\d[ ./-]{1,2}\d{1,2}[ ./-]{1,2}\d{1,2}"
    r"|\d{1,2}[ ./-]{1,2}\d{1,2}[ ./-]{1,2}(?:(?:19|20)\d\d|\d\d)"
    rf"|\d{{1,2}}(?:st|nd|rd|th|\.|er)?[ -](?:of |de )?{_MONTH}[ ,-]{{1,2}}(?:de )?(?:19|20)\d\d"
    rf"|{_MONTH}[ -]\d{{1,2}}(?:st|nd|rd|th)?,?[ -](?:19|20)\d\d"
)
_BIRTH = (
    r"(?:birth(?: ?da(?:y|te))?|d\.?o\.?b|born|geboren|geburts(?:datum|tag)|geb\.|naissance|n[?]e? le"
    r"|nacimiento|nacid[oa]|nascita|nat[oa] il|nascimento|nascid[oa]|geboorte(?:datum)?"
    r"|f[?oe]{1,2}dsels(?:dato|datum|dag)|f[?o]dd|f[?o]dt|urodzenia|urodzon[ya]|syntym[?a]aika|dogum tarihi)"
)
BIRTH = known("date_of_birth", rf"(?i)\b{_BIRTH}[^0-9]{{0,20}}?\b({_DATE})\b", confidence=0.8)
BIRTH_SIGN = (
    r"(?i:birth|d\.?o\.?b|born|gebor|geburt|geb\.|naiss|n[?]e?.{1,2}le|nacim|nacid|nascit|nat[oa].{1,2}il"
    r"|nascim|nascid|geboort|dsels|f[^a-z]d[dt]|fod[dt]|urodz|syntym|dogum)"
)
BIC = known(
    "bic",
    r"\b(?i:swift|bic)[^A-Za-z0-9]{1,3}(?i:(?:code|address|is)[^A-Za-z0-9]{1,3}){0,2}"
    r"([A-Z]{6}[A-Z0-9]{2}(?:[A-Z0-9]{3})?)\b",
    whole(bic.is_valid),
)
