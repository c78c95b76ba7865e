"""Routes that follow from names. Picture: lab/scenarios/app_connector.py"""
from lab.scenarios import app_connector


def test_names_lead_to_what_they_resolve_to(lab, programs):
    app_connector.follows_the_policy(app_connector.run(lab))


def test_a_file_declares_the_connector(lab, programs):
    app_connector.is_declared(lab)
