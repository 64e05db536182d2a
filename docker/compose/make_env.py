"""Print the .env of compose.yaml: every password and key that it asks for, fresh and random.

Needs Python alone: ``(umask 077; python3 docker/compose/make_env.py > .env)``.
"""

from __future__ import annotations

import base64
import secrets

SECRETS = {
    "POSTGRES_PASSWORD": "of the databases",
    "ADMIN_PASSWORD": "of admin, on Airflow's page",
    "AWS_ACCESS_KEY_ID": "of the S3 server",
    "AWS_SECRET_ACCESS_KEY": "of the S3 server",
    "API_SECRET_KEY": "what Airflow signs sessions of its page with",
    "JWT_SECRET": "what Airflow signs its components' tokens with",
}
"""What is any random text of letters and digits."""


def render_env() -> str:
    """Render the file."""
    lines = ["# Read by compose.yaml; never to be committed."]
    for name, purpose in SECRETS.items():
        lines += [f"# {purpose}", f"{name}={secrets.token_hex(20)}"]
    fernet_key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    lines += ["# what Airflow encrypts its connections with", f"FERNET_KEY={fernet_key}"]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    print(render_env(), end="")
