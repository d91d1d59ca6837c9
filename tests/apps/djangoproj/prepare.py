"""Makes the database with one administrator, and the file that is downloaded. Run once before the server starts."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "djangoproj.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.core.management import call_command  # noqa: E402

call_command("migrate", verbosity=0)
get_user_model().objects.create_superuser("admin", "admin@example.org", "secret")
settings.MEDIA_ROOT.mkdir()
(settings.MEDIA_ROOT / "download.bin").write_bytes(bytes(range(256)) * 4096)
