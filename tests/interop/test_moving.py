"""Nodes that move and boxes that forget, where one side is a stock client. Picture: lab/scenarios/paths.py"""
import pytest

from lab.scenarios import moving
from lab.stock import StockClient

pytestmark = pytest.mark.needs("tailscaled", "tailscale")


@pytest.mark.parametrize("story", [moving.a_client_roams_during_a_transfer, moving.a_nat_box_starts_over,
                                   moving.control_is_away_while_a_relay_starts_over, moving.nats_forget_after_half_a_minute,
                                   moving.a_path_is_lost_in_one_direction],
                         ids=lambda story: story.__name__)
def test_with_a_stock_client(lab, programs, story):
    story(lab, bob_is=StockClient)
