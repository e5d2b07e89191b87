"""People of one company, behind one address, sign in at the same moment: each of them is answered, and others meanwhile."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from html import unescape

from authserver.testing.server import ISSUER, PASSWORD

FORM = re.compile(r'<input type="hidden" name="(csrf_token|request)" value="([^"]*)">')
# More than there are threads, and than may wait with a thread.
PEOPLE = 12


def test_a_burst_of_sign_ins_from_one_address_is_answered_and_holds_no_threads(sqlite_url, make_faulty):
    """T103, T104: one thread of four checks passwords; whoever asks for something else does not wait for them."""
    faulty = make_faulty(sqlite_url, settings=[{"authserver.password_checks": "1"}])
    (process,) = faulty.processes
    together = threading.Barrier(PEOPLE + 1)

    def sign_in(_number):
        page = process.get("/login")
        cookie = "; ".join(line.partition(";")[0] for line in page.headers.get_all("Set-Cookie"))
        form = {name: unescape(value) for name, value in FORM.findall(page.body.decode())}
        together.wait(30)
        form |= {"username": "ann", "password": PASSWORD}
        return process.post("/login", form, {"Cookie": cookie, "Origin": ISSUER})

    with ThreadPoolExecutor(PEOPLE) as pool:
        signed_in = [pool.submit(sign_in, number) for number in range(PEOPLE)]
        together.wait(30)
        others = []
        while not all(each.done() for each in signed_in):
            others.append(process.get("/oauth/jwks"))
            time.sleep(0.01)
        answers = [each.result() for each in signed_in]
    assert [answer.status for answer in answers] == [303] * PEOPLE
    assert {answer.status for answer in others} == {200}
    assert max(answer.seconds for answer in answers) < 3
