"""Whose state it is: the name of an account in manifests, logs and receipts, and the only place that takes it apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing import Self

__all__ = ["AccountKey"]

_ANY: Final = "*"


class AccountKey(str):
    """A server and a company, ``*`` for any company that the credential may see: ``https://… 1f0c…``.

    It is the text itself, so that it can be the key of an object in JSON.
    """

    __slots__ = ()

    @classmethod
    def of(cls, server: str, company_id: str | None) -> Self:
        """Return the key of a company, or of all that a credential may see."""
        return cls(f"{server} {company_id or _ANY}")

    @property
    def server(self) -> str:
        """The server's URL."""
        return self.rpartition(" ")[0]

    @property
    def company(self) -> str:
        """The company as it is shown: its id, or ``*`` for any."""
        return self.rpartition(" ")[2]

    @property
    def company_id(self) -> str | None:
        """The company, or None for any."""
        return None if self.company == _ANY else self.company
