"""A kong-pdk style plugin that writes down what the log phase shows it."""

import json
from pathlib import Path

Schema = [{"path": {"type": "string", "required": True}}]
version = "1.0.0"
priority = 10
pdk_style = "plain"


class Plugin:
    def __init__(self, config):
        self.path = Path(config["path"])

    def log(self, kong):
        line = {
            "log": json.loads(kong.log.serialize()),
            "account": kong.ctx.shared.get("account"),
            "headers": kong.request.get_headers(100),
            "status": kong.response.get_status(),
            "receipt": kong.response.get_header("x-km-receipt"),
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
