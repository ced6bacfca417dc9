"""``python -m llmpatch.harness ARGUMENTS`` is ``lm_eval ARGUMENTS`` with the model ``llmpatch`` in its table."""

from __future__ import annotations

import sys

from llmpatch.errors import INTERRUPTED, LlmpatchError
from llmpatch.harness import register


def main() -> int:
    """Run the harness's command line.

    Returns:
        The exit code: ours for what is wrong with a base or a patch, else the harness's.
    """
    try:
        register()
        from lm_eval.__main__ import cli_evaluate

        cli_evaluate()
    except LlmpatchError as error:
        sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
