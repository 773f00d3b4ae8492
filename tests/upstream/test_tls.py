"""What a failed handshake is said to mean."""

import pytest

from reid_edge.upstream.tls import certificate_advice


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert certificate expired", "renew it"),
        ("[SSL: SSLV3_ALERT_CERTIFICATE_REVOKED] sslv3 alert certificate revoked", "make another"),
        ("[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca", "of another authority"),
        ("[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] sslv3 alert handshake failure", "may not accept this certificate"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "compare tls.ca"),
        ("connection refused", ""),
    ],
)
def test_the_advice_fits_what_the_other_end_said(error, advice):
    said = certificate_advice(error, "gallery")
    assert advice in said
    assert bool(said) == bool(advice)
