"""The command `km-pluginserver`."""

import json
import logging
import sys

from kong_plugins.server import logs
from kong_plugins.server.errors import PluginLoadError
from kong_plugins.server.options import Options, parse_options
from kong_plugins.server.registry import PluginSources, describe


def main(arguments: list[str] | None = None) -> int:
    """Run the server, or print what Kong's `query_cmd` wants; return the exit code."""
    options = parse_options(arguments)
    if options.dump is not None:
        return _dump(options.dump, options.sources)
    return _serve(options)


def _dump(name: str, sources: PluginSources) -> int:
    try:
        plugin = sources.load(name)
    except PluginLoadError as error:
        print(f"km-pluginserver: {error} ({error.__cause__})", file=sys.stderr)  # noqa: T201 - the command's answer
        return 1
    print(json.dumps(describe([plugin])))  # noqa: T201 - the command's answer
    return 0


def _serve(options: Options) -> int:
    from kong_plugins.server.descriptors import raise_limit
    from kong_plugins.server.env_file import EnvFileError, load_env_file
    from kong_plugins.server.master import Master
    from kong_plugins.server.socket_place import SocketPlaceError

    logs.set_up(options.log_level)
    raise_limit()
    try:
        if options.env_file is not None:
            load_env_file(options.env_file)
        master = Master(options)
    except (EnvFileError, SocketPlaceError, OSError) as error:
        logs.log(logging.ERROR, "plugin server cannot start", error=error)
        return 1
    return master.run()


if __name__ == "__main__":
    sys.exit(main())
