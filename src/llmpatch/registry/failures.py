"""What python-tuf refuses, as our errors: what was wrong, where, what to do.

with explained("registry acme"):
    updater.refresh()
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tuf.api import exceptions
from tuf.api.serialization import DeserializationError

from llmpatch.artifact.strict_json import shown
from llmpatch.errors import IntegrityError, LlmpatchError, TrustError

_AGAIN = "try again; if it stays so, tell who runs the registry: somebody may be in between"


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn what TUF raises into one clear error.

    Raises:
        TrustError: not signed by whom it should be, older than what was seen before, expired.
        IntegrityError: damaged, larger than allowed, or not what its hash says.
        LlmpatchError: cannot be reached, too slow, disk errors.
    """
    try:
        yield
    except LlmpatchError:
        raise
    except (exceptions.RepositoryError, exceptions.DownloadError) as error:
        raise _explain(error, where) from None
    except OSError as error:
        raise LlmpatchError(
            f"{where}: {error.filename or 'the disk'}: {error.strerror or error}", hint="check space and permissions"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:  # odd metadata, deep in TUF
        raise IntegrityError(f"{where}: damaged metadata: {shown(str(error), 200)}", hint=_AGAIN) from None


def _explain(error: Exception, where: str) -> LlmpatchError:
    said = shown(str(error), 200)
    if isinstance(error, exceptions.ExpiredMetadataError):
        return TrustError(
            f"{where}: {said}: nobody has signed it anew, so newer patches or advisories may be kept from you",
            hint="try another mirror; whoever runs it: llmpatch registry refresh. Is this machine's clock right?",
        )
    if isinstance(error, exceptions.BadVersionNumberError):
        return TrustError(f"{where}: older than what was seen before, or out of order: {said}", hint=_AGAIN)
    if isinstance(error, exceptions.UnsignedMetadataError):
        return TrustError(
            f"{where}: not signed by those who should: {said}",
            hint="its keys were replaced without you, or it is not the registry that you added: ask its owner",
        )
    if isinstance(error, (DeserializationError, exceptions.LengthOrHashMismatchError)):
        return IntegrityError(f"{where}: damaged or not what was signed: {said}", hint=_AGAIN)
    if isinstance(error, exceptions.RepositoryError):
        return TrustError(f"{where}: {said}", hint=_AGAIN)
    if isinstance(error, exceptions.DownloadLengthMismatchError):
        return IntegrityError(f"{where}: larger than allowed: {said}", hint=_AGAIN)
    if isinstance(error, exceptions.SlowRetrievalError):
        return LlmpatchError(f"{where}: too slow: {said or 'no bytes came'}", hint=_AGAIN)
    cause = f": {shown(str(error.__cause__), 200)}" if error.__cause__ is not None else ""
    return LlmpatchError(f"{where}: {said}{cause}", hint="check the address and the network; --offline uses the cache")
