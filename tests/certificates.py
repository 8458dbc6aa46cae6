"""Certificates for 127.0.0.1, made by the openssl command."""

import ssl
import subprocess
from pathlib import Path


def make_certificate(directory: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """Return what a server at 127.0.0.1 needs, and the file that its callers trust."""
    key, certificate = directory / f"{name}.key", directory / f"{name}.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate
