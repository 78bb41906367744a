import pytest

from keras_practice.tuning.engines.addresses import address_of, is_loopback


@pytest.mark.parametrize(
    ("text", "host", "address"),
    [
        ("node1:8470", None, ("node1", 8470)),
        ("10.0.0.5:1", None, ("10.0.0.5", 1)),
        ("[::1]:8470", None, ("[::1]", 8470)),
        ("8470", "127.0.0.1", ("127.0.0.1", 8470)),
        ("0", "127.0.0.1", ("127.0.0.1", 0)),
        ("0.0.0.0:8470", "127.0.0.1", ("0.0.0.0", 8470)),
    ],
)
def test_addresses(text, host, address):
    assert address_of(text, host=host) == address


@pytest.mark.parametrize(
    "text", ["", "node1", "node1:", ":8470", "node1:0", "node1:65536", "a:-1", "::1:8470", "8470"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match="An address must be HOST:PORT"):
        address_of(text)


def test_loopback_is_told_from_the_rest():
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "10.0.0.5", "[::]", "node1")))
