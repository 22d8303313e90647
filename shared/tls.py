"""TLS as kubectl, the kubelet and the container runtime verify it.

Python 3.13 and later ask by default for what RFC 5280 says of certificates (VERIFY_X509_STRICT), such as a key usage
extension of a CA, which Go's crypto/x509 does not ask for and the CA of many a cluster or registry lacks.
"""

from __future__ import annotations

import ssl


def client_context() -> ssl.SSLContext:
    """A context that trusts the system's CAs, verifies names and dates, and takes certificates as Go does."""
    context = ssl.create_default_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def bare_context(*, verify: bool = True) -> ssl.SSLContext:
    """A context without CAs, for a client that brings its own: urllib3 loads ``ca_certs`` into it, or the system's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = verify
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
