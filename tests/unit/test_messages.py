import base64

import numpy as np
import pytest

from kneeoa import errors
from kneeoa.errors import BY_CODE, CorruptImage, KneeOaError
from kneeoa.messages import decode_png, encode_png


def test_a_crop_survives_the_border(rng):
    image = rng.integers(0, 255, (20, 30), np.uint8)

    assert (decode_png(encode_png(image)) == image).all()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no base64!",
        base64.b64encode(b"GIF89a").decode(),
        base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 8 + (65535).to_bytes(4, "big") * 2).decode(),
        encode_png(np.zeros((20, 30), np.uint8))[:40],
    ],
)
def test_a_bad_crop_is_a_coded_error(text):
    with pytest.raises(CorruptImage):
        decode_png(text)


def test_every_error_has_its_own_code_and_speaks_for_itself():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and kind is not KneeOaError]

    assert [kind.code for kind in kinds] == list(BY_CODE)
    assert all(400 <= kind.http_status <= 500 and str(kind()) for kind in kinds)
