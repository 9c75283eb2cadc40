"""`kantactl`: the command, from its arguments to its exit status (listed in `arguments`)."""

import os
import sys
from argparse import Namespace

from kantactl.arguments import parser
from kantad.logs import open_closed_streams


def main() -> None:
    """The console script."""
    open_closed_streams()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command; returns the exit status."""
    if arguments[:1] == ["--complete"]:
        from kantactl.completing import complete

        return complete(arguments[1:])
    args = parser().parse_args(arguments)
    if args.command == "completion":
        from kantactl.completion import SCRIPTS

        sys.stdout.write(SCRIPTS[args.shell])
        return 0
    return _with_client(args)


def _with_client(args: Namespace) -> int:
    import asyncio  # not before there is something to do: completion has no use for it, nor for the client

    from kantactl.refusals import INTERRUPTED, OK, told

    try:
        asyncio.run(_run(args))
    except KeyboardInterrupt:
        return INTERRUPTED
    except (BrokenPipeError, asyncio.CancelledError):  # nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
        return OK
    except Exception as error:
        return told(error, args.json_errors)
    return OK


async def _run(args: Namespace) -> None:
    from kanta_client import KantaClient

    from kantactl.commands import COMMANDS, Telling
    from kantactl.output import Output
    from kantactl.refusals import UsageError

    try:
        on_state = Telling() if args.command == "watch" else None
        db = KantaClient(args.url, token=token(args.token_file), timeout=args.timeout, on_state=on_state)
    except ValueError as error:
        raise UsageError(str(error)) from None
    async with db:
        await COMMANDS[args.command](db, args, Output(sys.stdout, args.color, args.json))


def token(file: str | None) -> str | None:
    """The access token: out of a file, or the environment."""
    if file is None:
        return os.environ.get("KANTA_TOKEN") or None
    with open(file, encoding="utf-8") as opened:
        return opened.read().strip()


if __name__ == "__main__":
    main()
