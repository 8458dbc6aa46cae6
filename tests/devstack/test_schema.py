"""Kong's schema language."""

from typing import Any

import pytest

from devstack.gateway.lua_patterns import LuaPatternError, compile_lua_pattern
from devstack.gateway.schema import SchemaError, process_record


def checked(rules: dict[str, Any], value: Any) -> Any:
    """The error of one field, None when it is good."""
    return process_record([{"f": rules}], {"f": value})[1].get("f")


class TestProcessRecord:
    def test_fills_defaults_and_leaves_the_rest_empty(self):
        fields = [
            {"a": {"type": "string", "default": "x"}},
            {"b": {"type": "integer"}},
            {"c": {"type": "record", "required": True, "fields": [{"d": {"type": "number", "default": 1.5}}]}},
            {"e": {"type": "record", "fields": [{"d": {"type": "number", "default": 1.5}}]}},
        ]
        assert process_record(fields, {}) == ({"a": "x", "b": None, "c": {"d": 1.5}, "e": None}, {})

    def test_names_unknown_and_missing_fields_where_they_are(self):
        fields = [
            {"a": {"type": "string", "required": True}},
            {"b": {"type": "record", "fields": [{"c": {"type": "string", "required": True}}]}},
        ]
        assert process_record(fields, {"b": {"x": 1}, "y": 2})[1] == {
            "a": "required field missing",
            "b": {"c": "required field missing", "x": "unknown field"},
            "y": "unknown field",
        }

    @pytest.mark.parametrize(
        ("rules", "good", "bad"),
        [
            ({"type": "string"}, ["x"], ["", 1, True, ["x"], {}]),
            ({"type": "string", "len_min": 0}, ["", "x"], [1]),
            ({"type": "integer"}, [1, 2.0], [1.5, "1", True]),
            ({"type": "number"}, [1, 1.5], ["1", False]),
            ({"type": "boolean"}, [True, False], [0, "true"]),
            ({"type": "integer", "between": [1, 3]}, [1, 3], [0, 4]),
            ({"type": "number", "gt": 0}, [0.1], [0]),
            ({"type": "string", "one_of": ["a", "b"]}, ["a"], ["c"]),
            ({"type": "string", "not_one_of": ["a"]}, ["b"], ["a"]),
            ({"type": "string", "match": "^[%w%-]+$"}, ["X-Api-Key"], ["a b", "a_b"]),
            ({"type": "string", "starts_with": "/"}, ["/a"], ["a"]),
            ({"type": "string", "uuid": True}, ["0716b3b6-8d7e-5b64-aa5b-5e26b5732d39"], ["0716b3b6"]),
            ({"type": "array", "elements": {"type": "integer"}}, [[], [1]], [["a"], "a", {"a": 1}]),
            ({"type": "array", "len_min": 1, "elements": {"type": "integer"}}, [[1]], [[]]),
            ({"type": "map", "values": {"type": "integer"}}, [{}, {"a": 1}], [{"a": "b"}, [1]]),
            ({"type": "map", "keys": {"type": "string", "match": "^%l+$"}}, [{"a": "b"}], [{"A": "b"}]),
            (
                {"type": "string", "match_none": [{"pattern": "%s", "err": "no blanks"}]},
                ["ab"],
                ["a b"],
            ),
        ],
    )
    def test_rules(self, rules: dict[str, Any], good: list[Any], bad: list[Any]):
        assert [value for value in good if checked(rules, value) is not None] == []
        assert [value for value in bad if checked(rules, value) is None] == []

    def test_a_set_keeps_one_of_each(self):
        fields = [{"f": {"type": "set", "elements": {"type": "string"}}}]
        assert process_record(fields, {"f": ["a", "b", "a"]})[0] == {"f": ["a", "b"]}

    def test_refuses_a_rule_it_would_not_check(self):
        with pytest.raises(SchemaError, match="rule 'custom_validator'"):
            checked({"type": "string", "custom_validator": "f"}, "x")
        with pytest.raises(SchemaError, match="type 'function'"):
            checked({"type": "function"}, "x")


class TestLuaPatterns:
    @pytest.mark.parametrize(
        ("pattern", "text", "matches"),
        [
            ("^%d+$", "123", True),
            ("^%d+$", "12a", False),
            ("a.c", "abc", True),
            ("a%.c", "abc", False),
            ("^[^*&%%\\`]+$", "/var/log/x.log", True),
            ("^[^*&%%\\`]+$", "/var/log/*.log", False),
            ("^a-b$", "aaab", True),
            ("^[%a_][%w_]*$", "_a1", True),
            ("^%S+$", "a b", False),
        ],
    )
    def test_matches_as_lua_does(self, pattern: str, text: str, *, matches: bool):
        assert (compile_lua_pattern(pattern).search(text) is not None) is matches

    @pytest.mark.parametrize("pattern", ["%b()", "%f[%w]", "%1", "abc%", "[abc"])
    def test_refuses_what_has_no_equal(self, pattern: str):
        with pytest.raises(LuaPatternError):
            compile_lua_pattern(pattern)
