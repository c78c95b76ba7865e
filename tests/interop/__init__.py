import pytest

from lab.stock import Headscale
from lab.tailrace import TailraceControl

UNDER_EITHER = pytest.mark.parametrize("control_is", [TailraceControl, pytest.param(Headscale, marks=pytest.mark.needs("headscale"))])
