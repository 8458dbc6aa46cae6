"""Names of the four plugins, their order, and the configuration fields that the renderer writes."""

MONETIZE = "km-monetize"
KEY_AUTH = "km-key-auth"
PLAN_LIMIT = "km-plan-limit"
USAGE_METER = "km-usage-meter"
ALL = (MONETIZE, KEY_AUTH, PLAN_LIMIT, USAGE_METER)

# Kong runs plugins of a higher priority first. Its own key-auth has 1250, rate-limiting 910, file-log 9.
PRIORITIES = {MONETIZE: 1240, KEY_AUTH: 1240, PLAN_LIMIT: 905, USAGE_METER: 8}

API_PRODUCT_FIELD = "api_product"
