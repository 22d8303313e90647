"""A cluster's key for service-account tokens, and tokens as its API server would sign them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm


@dataclass(frozen=True)
class Issuer:
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: rsa.generate_private_key(65537, 2048)
    )
    kid: str = "first"

    @property
    def algorithm(self) -> str:
        return "RS256" if isinstance(self.key, rsa.RSAPrivateKey) else "ES256"

    def keys(self) -> str:
        """As ``/openid/v1/jwks`` has them."""
        public = self.key.public_key()
        text = RSAAlgorithm.to_jwk(public) if isinstance(public, rsa.RSAPublicKey) else ECAlgorithm.to_jwk(public)
        return json.dumps({"keys": [{**json.loads(text), "use": "sig", "alg": self.algorithm, "kid": self.kid}]})

    def claims(self, namespace: str, name: str, pod_uid: str) -> dict[str, Any]:
        now = int(time.time())
        return {
            "aud": ["https://kubernetes.default.svc.cluster.local"],
            "exp": now + 3607,
            "iat": now,
            "iss": "https://kubernetes.default.svc.cluster.local",
            "jti": "b3b1bb5f-5a5d-4d6b-9d3f-6b3f0a6b0a0a",
            "kubernetes.io": {
                "namespace": namespace,
                "node": {"name": "node-1", "uid": "1"},
                "pod": {"name": "web", "uid": pod_uid},
                "serviceaccount": {"name": name, "uid": "2"},
                "warnafter": now + 3000,
            },
            "nbf": now,
            "sub": f"system:serviceaccount:{namespace}:{name}",
        }

    def token(self, namespace: str, name: str, pod_uid: str, **changes: Any) -> str:
        claims = self.claims(namespace, name, pod_uid) | changes
        return jwt.encode(claims, self.key, self.algorithm, headers={"kid": self.kid})
