"""The one way to a policy in use: parsed, compiled and proved, or refused with everything that is wrong."""

from .compile import compile_policy
from .compiled import CompiledPolicy
from .errors import PolicyError
from .schema import parse
from .types import Catalog
from .verify import verify


def load(document: object, source: str, catalog: Catalog) -> CompiledPolicy:
    """A policy that is safe to use. `document` is what YAML or JSON gave, `source` what to call it in errors.

    PolicyError lists what is wrong with its keys or, once they are right, all that the catalog cannot
    serve together with every path that could break a zone's ceiling.
    """
    policy, misfits = compile_policy(parse(document, source, catalog.scale), catalog)
    if problems := [*misfits, *map(str, verify(policy))]:
        raise PolicyError(source, problems)
    return policy
