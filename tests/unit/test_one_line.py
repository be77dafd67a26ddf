import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from loramux_serving.relay.dialects.one_line import one_line


@given(st.text(st.one_of(st.sampled_from("\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\\é"), st.characters(codec="utf-8"))))
def test_it_is_one_line_and_means_the_same(text: str) -> None:
    found = one_line(msgspec.json.encode({"text": text}))

    assert len(found.decode().splitlines()) == 1
    assert json.loads(found) == {"text": text}
