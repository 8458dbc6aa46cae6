"""The steps that people take, each as a request to the REST API."""

from typing import Any

from devstack.year.model import Do, at


def subscribes(moment: str, plan: str, words: str, *, trial: bool = False, **more: Any) -> Do:
    body = {"plan": plan, "trial": trial, **more}
    return Do(at=at(moment), words=words, path="/accounts/{account}/subscriptions", body=body, save={"sub": "id"})


def changes(moment: str, plan: str, words: str, *, when: str = "now", **more: Any) -> Do:
    return _of_subscription(moment, "change", words, {"plan": plan, "at": when, **more})


def discards_change(moment: str, words: str) -> Do:
    return _of_subscription(moment, "discard-change", words)


def cancels(moment: str, words: str, *, when: str, unused_time: str = "kept") -> Do:
    return _of_subscription(moment, "cancel", words, {"at": when, "unused_time": unused_time})


def keeps(moment: str, words: str) -> Do:
    return _of_subscription(moment, "keep", words)


def pauses(moment: str, words: str) -> Do:
    return _of_subscription(moment, "pause", words)


def resumes(moment: str, words: str) -> Do:
    return _of_subscription(moment, "resume", words)


def adds(moment: str, add_on: str, quantity: int, words: str) -> Do:
    return _of_subscription(moment, "add-ons", words, {"add_on": add_on, "quantity": quantity})


def holds(moment: str, add_on: str, quantity: int, words: str) -> Do:
    path = f"/subscriptions/{{sub}}/add-ons/{add_on}"
    return Do(at=at(moment), words=words, method="PUT", path=path, body={"quantity": quantity})


def removes(moment: str, add_on: str, words: str) -> Do:
    return _of_subscription(moment, f"add-ons/{add_on}/remove", words, {"at": "period_end"})


def asks(moment: str, path: str, words: str, *, method: str = "POST", save: Any = None, **body: Any) -> Do:
    return Do(at=at(moment), words=words, method=method, path=path, body=body, save=save or {})


def _of_subscription(moment: str, what: str, words: str, body: Any = None) -> Do:
    return Do(at=at(moment), words=words, path=f"/subscriptions/{{sub}}/{what}", body=body or {})
