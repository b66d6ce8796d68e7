"""Addresses at which the web reads a recording's objects: https, or none."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from uploader.errors import BotRecorderError
from uploader.store import Store


class NoWebAddress(BotRecorderError, ValueError):
    """An object has no https address that could be told to anybody."""


@dataclass(frozen=True, slots=True)
class Links:
    """Makes the addresses of one store's objects.

    Attributes:
        store: Open.
        base_url: What the store's bucket and prefix are called on the web, where something stands
            before the bucket: a key follows it, after a `/`. The store's own address if None.
        presign_seconds: Have the store sign addresses that anybody may read for so long; None for
            plain ones.
    """

    store: Store
    base_url: str | None = None
    presign_seconds: int | None = None

    async def url(self, key: str) -> str:
        """Return an object's address.

        Raises:
            NoWebAddress: There is none, or it is not https.
            StoreError: It cannot be signed.
        """
        if self.presign_seconds is not None:
            if self.base_url is not None:
                raise NoWebAddress(
                    f"an address below {self.base_url} cannot be presigned",
                    hint="only the store's own can: leave one of the two out",
                )
            address: str | None = await self.store.presigned_url(key, self.presign_seconds)
        elif self.base_url is not None:
            address = f"{self.base_url.rstrip('/')}/{quote(key, safe='/=+,@:~')}"
        else:
            address = self.store.web_url(key)
        if address is None or urlsplit(address).scheme != "https":
            what = "has no address on the web" if address is None else "is not read by https"
            hint = "set RECORDER_WEB_URL to the https:// address that leads to it"
            if self.presign_seconds is not None:
                hint = "what is signed is read from the store itself: its endpoint must be https://"
            raise NoWebAddress(f"{self.store.url(key)} {what}", hint=hint)
        return address

    async def host(self) -> str:
        """Return the name of the host that the addresses lead to, or what stands for it.

        For making names unique, not for connecting: a store that the web does not know has one,
        too.
        """
        address = self.base_url or self.store.web_url("") or self.store.url("")
        return urlsplit(address).hostname or "localhost"
