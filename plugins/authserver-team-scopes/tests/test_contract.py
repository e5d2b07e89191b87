"""What every policy holds to, whatever it decides."""

from __future__ import annotations

from authserver.testing.contract import policy_contract
from authserver_team_scopes import TeamScopes

# The fixture `policy` gives the value: it needs a file. Teams have hours.
TestTeamScopes = policy_contract(TeamScopes, reads=("clock",))
