import pytest

from keras_practice.tuning.engines.chief_worker.messages import decode, encode


def test_messages_come_through_with_their_files():
    message, files = {"a": [1, float("inf"), "ü\n"]}, {"x/y": b"\n\x00", "empty": b""}
    assert decode(encode(message, files)) == (message, files)
    assert decode(encode(message)) == (message, {})
    with pytest.raises(ValueError, match="as long as it says"):
        decode(encode(message, files)[:-1])
    with pytest.raises(ValueError, match="JSON object"):
        decode(b"3")
