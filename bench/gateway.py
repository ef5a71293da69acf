"""What a gateway is asked to do for each request in the bench: verify a token, count a limit, and say who may read the answer."""

import base64
import hashlib
import hmac
import json

ORIGIN = "https://app.example"
ISSUER = "https://idp.example"
SECRET = b"of the bench alone, and of no use to anybody else"
ROUTES = 10_000


def part(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def token():
    """RFC 7515's compact form, by HS256, good until 2100."""
    claims = {"iss": ISSUER, "aud": "bench", "sub": "user-42", "role": "buyer", "exp": 4_102_444_800}
    signed = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    return (signed + b"." + part(hmac.digest(SECRET, signed, hashlib.sha256))).decode()


HEADERS = ("Authorization: Bearer " + token(), "Origin: " + ORIGIN)


def lictor(listen, upstream, count=1, is_asked=True):
    """`gateway:` with `count` routes, the last of which goes to `upstream`."""
    asked = f"""\
  auth: {{jwt: {{issuer: '{ISSUER}', audience: bench, secret: '{SECRET.decode()}'}}}}
  limit: 1000000/1s
  cors: {ORIGIN}
"""
    others = "".join(f"    - {{path: '/api/v{number % 7}/things{number}/{{id}}', to: {upstream}}}\n" for number in range(count - 1))
    return f"gateway:\n  listen: '{listen}'\n{asked if is_asked else ''}  routes:\n{others}    - {{path: /*, to: {upstream}}}\n"


def envoy(filters):
    """jwt_authn, with its cache of tokens, local_ratelimit and cors: (the HTTP filters before the router, what the route says of cors)."""
    keys = {"keys": [{"kty": "oct", "alg": "HS256", "k": part(SECRET).decode()}]}
    provider = {"issuer": ISSUER, "audiences": ["bench"], "local_jwks": {"inline_string": json.dumps(keys)}, "jwt_cache_config": {"jwt_cache_size": 100}}
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    configs = [
        ("cors", {"@type": f"{filters}.filters.http.cors.v3.Cors"}),
        ("jwt_authn", {
            "@type": f"{filters}.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"bench": provider},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "bench"}}],
        }),
        ("local_ratelimit", {
            "@type": f"{filters}.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "bench",
            "token_bucket": {"max_tokens": 1_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s"},
            "filter_enabled": always,
            "filter_enforced": always,
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        }),
    ]
    policy = {"cors": {"@type": f"{filters}.filters.http.cors.v3.CorsPolicy", "allow_origin_string_match": [{"exact": ORIGIN}]}}
    return [{"name": name, "typed_config": config} for name, config in configs], policy
