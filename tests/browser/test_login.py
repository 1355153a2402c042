"""Logging in and out in a real browser, with and without script."""

from __future__ import annotations

import pytest
from tests.support.server import PASSWORD
from tests.support.site import Site


@pytest.mark.parametrize("script", [True, False])
def test_somebody_logs_in_after_a_wrong_password_and_out_again(site: Site, script: bool):
    with site.tab(None, script=script) as tab:
        tab.expected = ("401",)
        page = tab.open("/")
        page.get_by_label("User name").fill("admin")
        page.get_by_label("Password").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        assert page.get_by_role("alert").inner_text().startswith("You are not logged in.")
        assert page.get_by_label("User name").input_value() == "admin"
        if script:
            tab.check()
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url("**/repositories")
        page.get_by_text("Account:").first.locator("xpath=..").click()
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/login")
