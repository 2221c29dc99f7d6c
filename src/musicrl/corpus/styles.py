"""The styles of the corpus: which grooves of MMA play them, how fast, with which harmony and which leads.

Groove names are MMA's (library file, groove name); style names are what a listener would say.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Meter = Literal["4/4", "3/4", "6/8"]
Harmony = Literal["plain", "dominant", "jazz", "blues"]


class Groove(NamedTuple):
    """One MMA groove: library file, name, the metre it plays and the quarters MMA writes for one bar of it."""

    file: str
    name: str
    meter: Meter = "4/4"
    quarters: int = 4


class Style(NamedTuple):
    """A style as a listener names it.

    Attributes:
        name: the listener's word.
        grooves: accompaniments; empty for chorales, which bring their own voices.
        tempo: slowest and fastest felt beat in beats per minute (dotted quarters in 6/8).
        leads: families of `instruments.FAMILIES` that typically lead.
        harmony: which chords carry sevenths.
        swing: whether off-beat eighths of the melody are played late.
    """

    name: str
    grooves: tuple[Groove, ...]
    tempo: tuple[int, int]
    leads: tuple[str, ...]
    harmony: Harmony = "dominant"
    swing: bool = False


def _lib(file: str, *names: str, meter: Meter = "4/4", quarters: int = 4) -> tuple[Groove, ...]:
    return tuple(Groove(file, name, meter, quarters) for name in names)


def _std(*pairs: str) -> tuple[Groove, ...]:
    return tuple(Groove(f"stdlib/{pair.split(':')[0]}", pair.split(":")[1]) for pair in pairs)


def _casio(*names: str) -> tuple[Groove, ...]:
    return tuple(Groove(f"casio/{name.lower()}", name) for name in names)


STYLES: dict[str, Style] = {
    style.name: style
    for style in (
        Style(
            "rock",
            _std("basicrock:BasicRock", "60srock:60sRock1", "softrock:SoftRock1")
            + _casio("Rock1", "Rock2", "PopRock1", "DigitalRock"),
            (92, 160),
            ("electric", "keys"),
            "plain",
        ),
        Style(
            "rock and roll",
            _std("50srock:50sRock", "50srock:50sRock1", "twist:Twist", "twist:TwistSus", "jive:Jive"),
            (138, 190),
            ("electric", "keys", "brass"),
        ),
        Style(
            "pop",
            _std("8beat:8Beat", "8beat:8Beat1Sus") + _casio("Pop", "8BeatPop1", "80sPop", "DancePop2", "16Beat2"),
            (86, 138),
            ("keys", "electric", "plucked"),
            "plain",
        ),
        Style(
            "ballad",
            _std(
                "ballad:Ballad",
                "ballad:Ballad1Sus",
                "popballad:PopBallad",
                "pianoballad:PianoBallad1",
                "guitarballad:GuitarBallad1",
                "rockballad:RockBallad",
                "stringballad:StringBallad",
            )
            + _casio("8BeatBallad1", "16BeatBallad2")
            + _lib("stdlib/ballad68", "Ballad68", "Ballad68Sus", meter="6/8"),
            (54, 84),
            ("keys", "plucked", "winds", "bowed"),
            "plain",
        ),
        Style(
            "soul",
            _std("dsoul:DSoul", "dsoul:DSoulSus", "rb:R&B") + _casio("60sSoul", "SoulPop", "MellowRB"),
            (70, 122),
            ("winds", "brass", "electric"),
            "jazz",
        ),
        Style(
            "funk",
            _std("bvfunk:BVFunk", "bvfunk:BVFunkHorns")
            + _casio("Funk1", "Funk2")
            + _lib("kara/Kfunk1", "Kfunk1A", "Kfunk1B"),
            (90, 126),
            ("brass", "electric", "winds"),
            "blues",
        ),
        Style(
            "disco",
            _std("boneym:BoneyM", "boneym:BoneyMSus") + _casio("DiscoSoul", "8BeatDance"),
            (108, 134),
            ("electric", "brass", "bowed"),
            "plain",
        ),
        Style("house", _casio("House", "LatinHouse", "Dance1", "Dance2"), (116, 134), ("electric", "keys"), "plain"),
        Style(
            "techno",
            _casio("Techno", "Rave") + _lib("alexis/teamtechno", "TeamTechno", "TeamTechnoSus"),
            (124, 152),
            ("electric", "mallets"),
            "plain",
        ),
        Style(
            "trance",
            _std("trance:Trance", "trance:Trance1", "trance:Trance2") + _casio("Trance1", "Trance2"),
            (126, 148),
            ("electric", "keys"),
            "plain",
        ),
        Style(
            "hip hop",
            _casio("Hip-Hop", "TripHop") + _lib("alexis/hiphop", "HipHop", "HipHopSus"),
            (72, 106),
            ("electric", "keys", "mallets"),
            "plain",
        ),
        Style(
            "ambient",
            _casio("Ambient1", "Ambient2", "Ambient3"),
            (54, 90),
            ("mallets", "electric", "winds", "bowed"),
            "plain",
        ),
        Style(
            "heavy metal",
            _casio("HeavyMetal")
            + _lib("pflib/metal1", "metal1A", "metal1B")
            + _lib("pflib/metal2", "metal2A", "metal2B"),
            (108, 188),
            ("electric",),
            "plain",
        ),
        Style(
            "jazz fusion",
            _std("lfusion:LFusion", "lfusion:LFusion1Sus", "jazzrock:JazzRock") + _casio("Fusion", "LatinFusion"),
            (92, 142),
            ("electric", "winds", "keys"),
            "jazz",
        ),
        Style(
            "swing",
            _std(
                "swing:Swing",
                "swing:SwingWalk",
                "easyswing:EasySwing",
                "easyswing:EasySwingWalk",
                "fastswing:FastSwing",
                "jazzcombo:JazzCombo",
            )
            + _lib("yamaha/jazzswing", "JazzSwingMainA", "JazzSwingMainB"),
            (112, 200),
            ("winds", "brass", "keys", "mallets"),
            "jazz",
            True,
        ),
        Style(
            "big band",
            _std("bigband:BigBand", "bigband:BigBandPlus", "bigband:BigBand1")
            + _casio("FastBigBand", "MiddleBigBand", "SlowBigBand"),
            (84, 190),
            ("brass", "winds"),
            "jazz",
            True,
        ),
        Style(
            "jazz ballad",
            _std(
                "slowjazz:SlowJazz",
                "slowjazz:SlowJazzWalk",
                "slowjazz:SlowJazzSus",
                "mellowjazz:MellowJazz",
                "nitejazz:NiteJazz",
                "evansish:Evansish",
            ),
            (54, 84),
            ("winds", "brass", "keys"),
            "jazz",
            True,
        ),
        Style(
            "gypsy jazz",
            _std("gypsyjazz:GypsyJazz", "gypsyjazz:GypsyJazzFiddle", "gypsyjazz:GypsyJazzGuitar"),
            (126, 200),
            ("bowed", "plucked", "winds"),
            "jazz",
            True,
        ),
        Style(
            "ragtime",
            _std("ragtime:RagTime", "ragtime:RagtimePlus", "ragtime:RagtimeSus"),
            (84, 168),
            ("keys", "plucked", "winds"),
        ),
        Style(
            "boogie-woogie",
            _std(
                "boggiewoggie:BoggieWoggie",
                "boggiewoggie:BoggieWoggie1",
                "boggiewoggie:BoggieWoggie2",
                "shuffleboggie:ShuffleBoggie",
            )
            + _casio("ShuffleBoogie"),
            (116, 184),
            ("keys", "electric", "winds"),
            "blues",
            True,
        ),
        Style(
            "blues",
            _std(
                "blues:Blues",
                "blues:BluesTriple",
                "slowblues:SlowBlues",
                "slowblues:SlowBluesWalk4",
                "slowblues:SlowBluesSus",
            )
            + _casio("Blues")
            + _lib("stdlib/blues68", "Blues68", "Blues68Walk", meter="6/8", quarters=6),
            (54, 120),
            ("plucked", "electric", "winds"),
            "blues",
            True,
        ),
        Style(
            "bossa nova",
            _std("bossanova:BossaNova", "bossanova:BossaNovaSus", "bossanova:BossaNova2Sus")
            + _lib("kara/kbossa", "kbossaA", "kbossaB")
            + _lib("yamaha/jazzbossa", "JazzBossaA", "JazzBossaB"),
            (88, 148),
            ("plucked", "winds", "keys", "mallets"),
            "jazz",
        ),
        Style(
            "samba",
            _std("samba:Samba", "samba:SambaPlus", "samba:SambaSus"),
            (94, 136),
            ("winds", "plucked", "brass", "mallets"),
            "jazz",
        ),
        Style(
            "salsa",
            _std("salsa:Salsa", "salsa:SalsaPlus", "salsa:SalsaSus")
            + _lib("yamaha/salsa1", "Salsa1MainA", "Salsa1MainB")
            + _lib("yamaha/salsa2", "Salsa2MainA", "Salsa2MainB"),
            (146, 200),
            ("brass", "keys", "winds", "mallets"),
        ),
        Style(
            "rumba",
            _std("rhumba:Rhumba", "rhumba:Rhumba1", "rhumba:Rhumba2", "rhumba:RhumbaSus", "jazzrhumba:JazzRhumba"),
            (84, 132),
            ("plucked", "winds", "mallets", "bowed"),
        ),
        Style(
            "tango",
            _std("tango:Tango", "tango:Tango1", "tango:TangoClean", "lighttango:LightTango", "lighttango:LightTango1"),
            (60, 132),
            ("keys", "bowed", "plucked"),
        ),
        Style(
            "ska",
            _std("ska:Ska", "ska:Ska1", "ska:SkaSus", "ska:SkaClap"),
            (118, 178),
            ("brass", "winds", "electric"),
            "plain",
        ),
        Style(
            "country",
            _std(
                "countryswing:CountrySwing",
                "slowcountry:SlowCountry",
                "slowcountry:SlowCountryWalk",
                "hillcountry:HillCountry",
                "countryblues:CountryBlues",
            )
            + _lib("yamaha/western", "WesternMainA", "WesternMainB")
            + _lib("stdlib/countrywaltz", "CountryWaltz", "CountryWaltz1", "CountryWaltzSus", meter="3/4", quarters=3),
            (68, 136),
            ("folk", "plucked"),
        ),
        Style(
            "bluegrass",
            _std("bluegrass:BlueGrass", "bluegrass:BlueGrassSus", "bluegrass:BlueGrassClap"),
            (116, 180),
            ("folk",),
            "plain",
        ),
        Style(
            "polka",
            _std("polka:Polka", "polka:PolkaSus", "polka:PolkaArp", "polka:Polka1") + _casio("Polka", "PopPolka"),
            (120, 200),
            ("folk", "winds", "brass"),
        ),
        Style(
            "march",
            _std("bwmarch:BWMarchPlus", "bwmarch:BWMarchSus", "march:March1", "march:March2", "march:March3")
            + _casio("March1", "GermanMarch")
            + _lib("stdlib/68march", "68March", "68MarchPlus", "68MarchSus", meter="6/8", quarters=2),
            (88, 132),
            ("brass", "winds"),
        ),
        Style(
            "folk",
            _std(
                "folk:Folk",
                "folk:FolkArticulated",
                "folk:FolkWalk",
                "folkballad:FolkBallad",
                "folkballad:FolkBallad1",
                "bluefolk:BlueFolk",
                "folkrock:FolkRock",
            ),
            (66, 140),
            ("folk", "plucked", "winds"),
            "plain",
        ),
        Style(
            "hymn",
            _std("hymn:Hymn", "hymn:HymnRoot", "hymn:HymnWalk", "hymn:HymnPlus", "popspiritual:PopSpiritual"),
            (60, 104),
            ("church",),
            "plain",
        ),
        Style(
            "lullaby",
            _std("lullaby:Lullaby", "lullaby:Lullaby1", "lullaby:LullabySus", "lullaby:LullabyWalk"),
            (54, 92),
            ("mallets", "winds", "plucked"),
            "plain",
        ),
        Style(
            "classical",
            _std("arpeggio44:Arpeggio4", "arpeggio44:Arpeggio8", "arpeggio44:Arpeggio48", "arpeggio44:Arpeggio8Sus")
            + _lib("stdlib/arpeggiowaltz", "ArpeggioWaltz", "ArpeggioWaltz8", meter="3/4", quarters=3)
            + _lib("stdlib/arpeggio68", "Arpeggio68", "Arpeggio68-16", "Arpeggio68Sus", meter="6/8", quarters=6),
            (56, 140),
            ("bowed", "winds", "keys", "plucked"),
            "plain",
        ),
        Style("chorale", (), (58, 104), ("church", "brass", "bowed", "winds")),
        Style(
            "waltz",
            _lib("stdlib/waltz", "Waltz", "WaltzSus", "Waltz1", "WaltzWalk", meter="3/4", quarters=3)
            + _lib("stdlib/frenchwaltz", "FrenchWaltz", "FrenchWaltz1", "FrenchWaltz2", meter="3/4", quarters=3)
            + _lib("stdlib/vienesewaltz", "VieneseWaltz", "VieneseWaltz1", "VieneseWaltz2", meter="3/4", quarters=3)
            + _lib("stdlib/fastwaltz", "FastWaltz", "FastWaltzPlus", meter="3/4", quarters=3)
            + _lib("casio/popwaltz", "PopWaltz", meter="3/4", quarters=3),
            (66, 190),
            ("keys", "bowed", "winds", "folk"),
        ),
        Style(
            "jazz waltz",
            _lib("stdlib/jazzwaltz", "JazzWaltz", "JazzWaltz1", "JazzWaltz2", meter="3/4", quarters=3)
            + _lib("stdlib/modernjazzwaltz", "ModernJazzWaltz", "ModernJazzWaltz1", meter="3/4", quarters=3)
            + _lib("yamaha/jazzwaltz", "JazzWaltzMainA", "JazzWaltzMainB", meter="3/4", quarters=3),
            (84, 192),
            ("winds", "keys", "mallets", "brass"),
            "jazz",
            True,
        ),
    )
}

WEIGHTS: dict[str, int] = {"waltz": 2}
"""Styles that get more than one share of the corpus: every tempo class and many leads of them are asked for."""
