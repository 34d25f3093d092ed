//! How to reach a realm's hosts: names to permitted addresses, trust, outbound proxy. One way for control calls and calls of callers,
//! so that a private address or an unknown CA is refused on both (threats, rows 7 and 24).
