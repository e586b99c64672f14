"""Who is trusted for what: key files, scopes, the developer key, private keys."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from bundle.conftest import Written, signing_key, trust_in
from edge_wm.bundle import (
    Trust,
    developer_key,
    examine_bundle,
    load_signing_key,
    load_trust,
    open_bundle,
    sign_bundle,
)
from edge_wm.bundle.signatures import (
    PROJECT_KEYS,
    SCOPES,
    config_folder,
    load_public_key,
    make_signing_key,
    public_key_text,
    seal,
)
from edge_wm.errors import TrustError, UsageError


def pub(folder: Path, name: str, seed: int, scopes: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(public_key_text(signing_key(seed), name, scopes))  # type: ignore[arg-type]
    return path


# ---- who may ---------------------------------------------------------------------------
@pytest.mark.parametrize("scope", SCOPES)
def test_only_the_scope_model_may_sign_a_model(written: Written, scope: str) -> None:
    trust = trust_in(written.key, scopes=(scope,))
    if scope == "model":
        assert open_bundle(written.path, trust).signer == trust.keys[0]
        return
    with pytest.raises(TrustError) as caught:
        open_bundle(written.path, trust)
    assert str(caught.value) == (
        f"bundle tiny.wmb: signed by user key 'key 1', which is trusted for {scope}, not for "
        "model; add the scope to its key file if you mean it"
    )


def test_an_unknown_key_may_be_looked_at_only(written: Written, config: Path) -> None:
    trust = trust_in(signing_key(2))
    bundle = examine_bundle(written.path, trust)
    assert (bundle.signer, bundle.key_id) == (None, written.key.key_id)
    with pytest.raises(TrustError) as caught:
        open_bundle(written.path, trust)
    assert str(caught.value) == (
        f"bundle tiny.wmb: signed by the unknown key {written.key.key_id[:16]}; trusted here: "
        f"user key 'key 2'; if you trust its maker, put the public key file into {config}/trust "
        "or name it with --trust FILE"
    )
    with pytest.raises(TrustError, match="trusted here: none; if you trust"):
        open_bundle(written.path, Trust(()))


def test_keys_come_from_the_package_the_folder_and_the_command_line(
    written: Written, config: Path, tmp_path: Path
) -> None:
    assert {key.kind for key in load_trust().keys} == {"project"}
    with pytest.raises(TrustError, match="unknown key"):
        open_bundle(written.path, load_trust())
    named = pub(tmp_path, "hall.pub", 1, ["model"])
    assert open_bundle(written.path, load_trust([named])).signer.title == "user key 'hall.pub'"  # type: ignore[union-attr]
    pub(config / "trust", "east.pub", 1, ["model"])
    assert open_bundle(written.path, load_trust()).signer.title == "user key 'east.pub'"  # type: ignore[union-attr]


def test_a_key_in_two_files_has_the_scopes_of_both(config: Path, tmp_path: Path) -> None:
    pub(config / "trust", "a.pub", 1, ["limits"])
    named = pub(tmp_path, "b.pub", 1, ["model", "deploy"])
    (key,) = [key for key in load_trust([named]).keys if key.kind == "user"]
    assert (key.name, key.scopes) == ("a.pub", {"limits", "model", "deploy"})


def test_the_projects_keys_are_well_formed_and_rotate_by_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: Written
) -> None:
    shipped = sorted(PROJECT_KEYS.glob("*.pub"))
    assert shipped
    assert all("model" in load_public_key(path, "project").scopes for path in shipped)
    assert not list(PROJECT_KEYS.glob("*.key"))
    monkeypatch.setattr("edge_wm.bundle.signatures.PROJECT_KEYS", tmp_path)
    pub(tmp_path, "old.pub", 2, ["model"])
    with pytest.raises(TrustError, match="unknown key"):
        open_bundle(written.path, load_trust())
    pub(tmp_path, "new.pub", 1, ["model"])
    assert open_bundle(written.path, load_trust()).signer.title == "project key 'new.pub'"  # type: ignore[union-attr]


# ---- developer key ----------------------------------------------------------------------
def test_a_developer_key_is_made_once_private_and_trusted_here(
    written: Written, config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = developer_key()
    assert developer_key().key_id == key.key_id
    assert stat.S_IMODE((config / "developer.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(config.stat().st_mode) == 0o700
    sign_bundle(examine_bundle(written.path, load_trust()), written.path, key)
    signer = open_bundle(written.path, load_trust()).signer
    assert signer is not None
    assert (signer.kind, signer.title) == (
        "developer",
        "developer key of this machine (simulation and developer-marked boards only)",
    )
    with pytest.raises(TrustError) as caught:
        open_bundle(written.path, load_trust(developer=False))
    assert str(caught.value) == (
        "bundle tiny.wmb: signed by the developer key of this machine (simulation and "
        "developer-marked boards only), and this robot is neither simulated nor marked as a "
        "developer's; sign it with a trusted key: edge-wm bundle sign --key"
    )
    monkeypatch.setenv("EDGE_WM_CONFIG", str(tmp_path / "another machine"))
    with pytest.raises(TrustError, match="unknown key"):
        open_bundle(written.path, load_trust())


def test_where_the_configuration_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_WM_CONFIG", "/a")
    assert config_folder() == Path("/a")
    monkeypatch.delenv("EDGE_WM_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/b")
    assert config_folder() == Path("/b/edge-wm")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/c")
    assert config_folder() == Path("/c/.config/edge-wm")


# ---- key files --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expected `object`, got `null`"),
        ("-----BEGIN PUBLIC KEY-----", "Expected `object`, got `str`"),
        ("format: edge-wm/key/2", "Invalid enum value 'edge-wm/key/2' - at `$.format`"),
        ("format: edge-wm/key/1", "Object missing required field `name`"),
        (
            "{format: edge-wm/key/1, name: x, ed25519: abc, scopes: [model]}",
            "Expected `str` matching regex '^[0-9a-f]{64}$' - at `$.ed25519`",
        ),
        (
            "{format: edge-wm/key/1, name: x, ed25519: " + "a" * 64 + ", scopes: []}",
            "Expected `array` of length >= 1 - at `$.scopes`",
        ),
        (
            "{format: edge-wm/key/1, name: x, ed25519: " + "a" * 64 + ", scopes: [root]}",
            "Invalid enum value 'root' - at `$.scopes[0]`",
        ),
        (
            "{format: edge-wm/key/1, name: x, ed25519: " + "a" * 64 + ", scopes: [model], x: 1}",
            "Object contains unknown field `x`",
        ),
    ],
)
def test_a_file_that_is_no_key_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.pub"
    path.write_text(text)
    with pytest.raises(TrustError) as caught:
        load_trust([path])
    assert str(caught.value) == (
        f"key file {path}: expected format, name, ed25519 (64 hex digits) and scopes "
        f"(model, limits, firmware, deploy), as docs/bundle.md shows: {message}"
    )


def test_a_key_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no file .*none\.pub; check the path"):
        load_trust([tmp_path / "none.pub"])


def test_private_keys_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "my.key"
    secret = ed25519.Ed25519PrivateKey.generate()
    pem = secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem)
    path.chmod(0o644)
    with pytest.raises(TrustError) as caught:
        load_signing_key(path)
    assert str(caught.value) == (
        f"private key {path} must be readable by you alone: chmod 600 {path}"
    )
    path.chmod(0o600)
    assert load_signing_key(path).name == "my"
    locked = secret.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    other = ec.generate_private_key(ec.SECP256R1())
    for content, words in (
        (b"nonsense", "must be an unencrypted Ed25519 key in PEM"),
        (locked, "must be an unencrypted Ed25519 key in PEM"),
        (other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "got ECPrivate"),
    ):
        path.write_bytes(content)
        with pytest.raises(TrustError, match=words):
            load_signing_key(path)


def test_a_private_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "new" / "my.key"
    key = make_signing_key(path)
    assert load_signing_key(path).key_id == key.key_id
    with pytest.raises(UsageError, match="there is a private key at"):
        make_signing_key(path)


def test_a_signature_is_the_same_every_time() -> None:
    assert seal(b"{}", signing_key(1)) == seal(b"{}", signing_key(1))
