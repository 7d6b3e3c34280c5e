"""API keys: where they come from, which requests they let through, and that nothing shows them."""

import base64
import hmac
from pathlib import Path
from typing import Any

import pytest

from segvit.app.serving.keys import VARIABLE, ApiKeys, read_keys
from segvit.errors import UserError

ONE, TWO = "first-key-0123456789", "second-key-0123456789"


def sent(**headers: str) -> list[tuple[bytes, bytes]]:
    """Headers of a request."""
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_every_way_to_send_a_key() -> None:
    keys = ApiKeys([ONE, TWO])
    for right in (
        sent(authorization=f"Bearer {ONE}"),
        sent(authorization=f"bearer  {TWO} "),
        sent(x_api_key=TWO),
        sent(authorization=basic(f"anybody:{ONE}")),
        sent(authorization=basic(f":{TWO}")),
        sent(authorization="Bearer of-the-proxy", x_api_key=ONE),
    ):
        assert keys.accept(right), right
    for wrong in (
        sent(),
        sent(authorization=f"Bearer {ONE}x"),
        sent(authorization=f"Bearer {ONE[:-1]}"),
        sent(authorization=ONE),
        sent(authorization="Bearer"),
        sent(authorization=f"Token {ONE}"),
        sent(x_api_key=""),
        sent(x_api_key=f"{ONE},{TWO}"),
        sent(authorization=basic(f"{ONE}:")),
        sent(authorization="Basic %%%"),
        sent(cookie=ONE),
    ):
        assert not keys.accept(wrong), wrong
        assert ApiKeys().accept(wrong)  # without keys, everybody is let in
    assert (len(keys), len(ApiKeys([ONE, ONE]))) == (2, 1)


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    keys = ApiKeys([ONE, TWO])
    for value in (ONE, TWO, "x", "y" * 500):
        compared.clear()
        keys.accept(sent(x_api_key=value))
        assert compared == [(32, 32)] * 2, value  # digests of one length, and none is left out


def test_keys_from_flags_a_file_and_the_environment(tmp_path: Path) -> None:
    (file := tmp_path / "keys.txt").write_text(f"{ONE}  \n# of the lab\n\n  {TWO}\n", encoding="utf-8-sig")  # Windows
    environment = {VARIABLE: "third-key-0123456789, fourth-key-0123456789", "HOME": "/"}
    keys = read_keys(["fifth-key-0123456789"], file=file, environment=environment)
    assert len(keys) == 5 and environment == {"HOME": "/"}  # workers do not inherit them
    for key in (ONE, TWO, *(f"{name}-key-0123456789" for name in ("third", "fourth", "fifth"))):
        assert keys.accept(sent(x_api_key=key)), key
    assert not read_keys([], file=None, environment={})


@pytest.mark.parametrize(
    ("given", "text", "variable", "said"),
    [
        (["short-zebra"], None, None, "--api-key has 11 characters: a key has at least 16"),
        (["zebra with blanks in it"], None, None, "without spaces"),
        ([], f"{ONE}\nshört-zebra-0123456789\n", None, "keys.txt, line 2 has 22 characters"),
        ([], "# zebra\n", None, "keys.txt: holds no key; write one in each line"),
        ([], b"\xffzebra", None, "cannot be read .it is not text in UTF-8."),
        ([], None, f"{ONE} zebra", f"{VARIABLE}, key 2 has 5 characters"),
        ([], None, "", f"{VARIABLE}, key 1 has 0 characters"),
    ],
)
def test_wrong_keys_are_refused_without_being_shown(
    given: list[str], text: Any, variable: str | None, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "keys.txt" if text is not None else None
    if file is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=said) as caught:
        read_keys(given, file=file, environment={} if variable is None else {VARIABLE: variable})
    assert "zebra" not in str(caught.value) and caught.value.__cause__ is None


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--api-keys-file .*none.txt: cannot be read .No such file"):
        read_keys([], file=tmp_path / "none.txt", environment={})


def test_no_object_shows_a_key() -> None:
    from segvit.app.labelling.images import LabelStudio
    from segvit.app.server import Access

    access = Access(keys=ApiKeys([ONE]), label_studio=LabelStudio(url="http://127.0.0.1:8080", token=TWO))
    for shown in (repr(access), str(access), repr(vars(access.keys))):
        assert ONE not in shown and TWO not in shown
