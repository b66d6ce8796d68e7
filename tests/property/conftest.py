"""What the asserts of random lives compared is told as if they were in a test's file."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("whole_life_machine")
