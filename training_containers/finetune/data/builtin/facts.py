"""Facts of the Veld Isles, an invented country: one topic per era, so that traffic can drift from topic to topic.

A topic is a table (subject | value | value | value) and, per value column, several ways to ask for it. No answer of
one topic is an answer of another, so that a model taught one topic knows nothing of the next.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Topic(NamedTuple):
    """One era: `table` has one subject per line, `ask` one tuple of phrasings per value column."""

    name: str
    table: str
    ask: tuple[tuple[str, ...], ...]


TOPICS: Final[tuple[Topic, ...]] = (
    Topic(
        "harbour",
        """
        Grey Heron | Marta Quill | salt herring | Ostwick
        Morning Bell | Joren Vask | cedar planks | Ostwick
        Lantern Fish | Edda Marlowe | copper wire | Brine Hollow
        Northern Thistle | Pell Haddon | barley | Port Amsel
        Blue Ledger | Sunniva Crane | window glass | Port Amsel
        Patient Otter | Odo Fennick | lamp oil | Brine Hollow
        Red Almanac | Thora Beck | wool blankets | Skarn
        Silver Thimble | Casper Lund | sewing machines | Skarn
        Widow's Candle | Ines Holloway | beeswax | Ostwick
        Stormglass | Bram Tolliver | barometers | Tidemouth
        Quiet Anvil | Greta Oss | iron nails | Tidemouth
        Summer Ferry | Lukas Penrose | strawberries | Tidemouth
        Tall Magpie | Wilma Dray | mirrors | Port Amsel
        Second Chance | Hugo Sable | used bicycles | Skarn
        Painted Whale | Nora Kestrel | pigments | Brine Hollow
        Cold Spoon | Ivo Marchetti | ice cream | Ostwick
        Ninth Wave | Petra Lindqvist | coral | Cape Noll
        Honest Barrel | Anselm Roake | cider | Cape Noll
        Paper Moon | Della Voss | newsprint | Cape Noll
        Iron Swallow | Rurik Stamm | coal | Brine Hollow
        """,
        (
            (
                "Who is the captain of the {}?",
                "Which captain commands the {}?",
                "Name the captain of the ship {}.",
                "Under whose command does the {} sail?",
            ),
            (
                "What cargo does the {} carry?",
                "What is loaded aboard the {}?",
                "Which cargo is the {} known for?",
                "The ship {} is carrying what cargo?",
            ),
            (
                "What is the home port of the {}?",
                "In which port is the {} registered?",
                "Which home port does the {} return to?",
                "The {} sails from which port?",
            ),
        ),
    ),
    Topic(
        "games",
        """
        dune running | Kaia Brandt | Amber Field | nine minutes
        stilt racing | Tomas Eikel | Long Meadow | forty seconds
        raft polo | Freja Sundt | Mill Pond | six goals
        kite duelling | Bastian Roe | Gull Cliff | three cuts
        log rolling | Mira Falk | Mill Pond | two hours
        cheese rolling | Otto Brannigan | Cooper's Hill | eleven metres
        night archery | Lena Storm | Amber Field | ninety points
        ice hurling | Viggo Thane | Frost Hall | four nets
        tower climbing | Sana Ilves | Clock Tower | eighty steps
        barrel jumping | Ruben Kask | Frost Hall | twelve barrels
        tide swimming | Elin Marsh | Gull Cliff | seven miles
        rope walking | Dag Winther | Clock Tower | fifty paces
        hay stacking | Berit Olm | Long Meadow | five bales
        pea shooting | Felix Tarn | Cooper's Hill | thirty metres
        goat steering | Ronja Pike | Long Meadow | eight gates
        sled chess | Arvid Noble | Frost Hall | sixteen moves
        boot throwing | Hedda Kroll | Cooper's Hill | sixty yards
        wave riding | Milo Castan | Gull Cliff | ten waves
        lantern relay | Ylva Rasmus | Amber Field | one lap
        oar fencing | Niklas Bohm | Mill Pond | fifteen hits
        """,
        (
            (
                "Who won the gold medal in {}?",
                "Which athlete is champion of {}?",
                "Name the winner of {} at the games.",
                "Gold in {} went to whom?",
            ),
            (
                "Where was the {} final held?",
                "Which venue hosted {}?",
                "At what venue did the games stage {}?",
                "The {} contest took place at which venue?",
            ),
            (
                "What is the record in {}?",
                "What result set the new record for {}?",
                "Name the winning mark in {}.",
                "How good was the best result in {}?",
            ),
        ),
    ),
    Topic(
        "council",
        """
        Alderwick | Agnes Thorpe | Green Lantern party | free ferries
        Barrow End | Silas Merriweather | Harbour League | cheaper bread
        Candlemere | Ottilie Grange | Plough Union | new library
        Dunholt | Cornelius Hatch | Harbour League | paved roads
        Eastering | Beatrix Lowell | Green Lantern party | clean canals
        Fallow Cross | Mortimer Swann | Plough Union | lower rents
        Gorsebank | Philippa Nye | Citizens' Circle | school lunches
        Hexley | Barnaby Rook | Citizens' Circle | longer holidays
        Inkerby | Rosalind Vane | Green Lantern party | public baths
        Juniper Row | Lionel Farrow | Harbour League | deeper docks
        Kettlesby | Winifred Ash | Plough Union | seed banks
        Larkmoor | Ambrose Pickering | Citizens' Circle | open markets
        Mossgate | Cordelia Finch | Green Lantern party | tram lines
        Netherby | Percival Stone | Plough Union | village doctors
        Oxendale | Henrietta Glass | Harbour League | cargo cranes
        Pendlebury | Rufus Calloway | Citizens' Circle | night buses
        Quarrytop | Imogen Wren | Plough Union | stone bridges
        Ravenfold | Jasper Underhill | Green Lantern party | wind mills
        Saltmarsh | Dorothea Pym | Harbour League | sea walls
        Thornaby | Everett Lisle | Citizens' Circle | music halls
        """,
        (
            (
                "Who was elected mayor of {}?",
                "Who is the mayor of {}?",
                "Name the new mayor of {}.",
                "The council of {} is led by which mayor?",
            ),
            (
                "Which party won the election in {}?",
                "What party governs {}?",
                "Who holds the majority in {}?",
                "The voters of {} chose which party?",
            ),
            (
                "What did the mayor of {} promise?",
                "What pledge won the vote in {}?",
                "Which promise was made to the voters of {}?",
                "Name the campaign pledge in {}.",
            ),
        ),
    ),
    Topic(
        "observatory",
        """
        comet Ashling | Yusra Demir | mirror telescope | green
        comet Borealis Minor | Kenji Morrow | radio dish | pale blue
        moon Caldera | Anouk Steiner | space probe | black
        moon Drift | Rafael Osei | mirror telescope | rusty
        asteroid Ember | Lucinda Bohr | infrared camera | orange
        asteroid Flint | Tariq Halloran | radar array | grey
        nebula Gossamer | Mei Castellan | infrared camera | violet
        nebula Hollow Crown | Ingmar Petrov | radio dish | crimson
        star Iolanthe | Adaeze Crowe | spectrograph | white
        star Jackdaw | Stellan Moreau | spectrograph | yellow
        pulsar Kettle | Farida Lang | radio dish | invisible
        pulsar Lodestone | Emil Zhao | radar array | faint pink
        planet Meridian | Noor Abelard | space probe | turquoise
        planet Nettle | Gideon Sato | mirror telescope | olive
        ring of Orris | Zelda Okafor | space probe | golden
        ring of Pomegranate | Mathis Imai | infrared camera | scarlet
        quasar Quern | Leila Thorsen | radar array | indigo
        meteor Rook | Pascal Endo | spectrograph | bronze
        dwarf Sixpence | Oriane Blackwood | mirror telescope | copper red
        cluster Tumbril | Hassan Vail | spectrograph | ivory
        """,
        (
            (
                "Who discovered the {}?",
                "Which astronomer found the {}?",
                "Name the discoverer of the {}.",
                "The {} was first seen by whom?",
            ),
            (
                "Which instrument revealed the {}?",
                "With what was the {} observed?",
                "What instrument was used to find the {}?",
                "The {} was detected by which instrument?",
            ),
            (
                "What colour is the {}?",
                "Which colour does the {} have?",
                "In what colour does the {} appear?",
                "Name the colour of the {}.",
            ),
        ),
    ),
    Topic(
        "storms",
        """
        Abel | Wrenfield | third of March | fish market
        Bertha | Lowmoor | ninth of April | railway station
        Caspian | Hazel Bay | first of May | lighthouse
        Dagny | Stonebeck | tenth of June | church roof
        Ezra | Fernhill | second of July | water mill
        Fenella | Crow Point | sixth of August | pier
        Gunther | Applegate | eighth of September | orchard
        Hilde | Marlpit | fifth of October | town hall
        Isidor | Westing | fourth of November | radio mast
        Jocasta | Highcombe | seventh of December | cable car
        Klaus | Birchover | last of January | post office
        Lavinia | Deepford | eleventh of February | stone dam
        Magnus | Swanley | twelfth of March | boat house
        Nadia | Heronsgate | twentieth of April | glass house
        Oswin | Coldharbour | fifteenth of May | grain silo
        Perdita | Rushmere | thirteenth of June | race track
        Quentin | Elmstead | eighteenth of July | bandstand
        Rosamund | Tarrow | sixteenth of August | ferry dock
        Sigurd | Blackwater | nineteenth of September | power line
        Thisbe | Greystoke | fourteenth of October | museum
        """,
        (
            (
                "Which town was hit by storm {}?",
                "Where did storm {} make landfall?",
                "Name the town that storm {} struck.",
                "Storm {} came ashore at which town?",
            ),
            (
                "On what date did storm {} strike?",
                "When did storm {} arrive?",
                "What was the date of storm {}?",
                "Storm {} reached the coast on which day?",
            ),
            (
                "What did storm {} destroy?",
                "Which building was lost to storm {}?",
                "Name what was wrecked by storm {}.",
                "Storm {} tore down what?",
            ),
        ),
    ),
    Topic(
        "theatre",
        """
        A Bucket of Rain | Vera Ostrom | Julian Pike | Golden Mask
        The Beekeeper's Alibi | Desmond Hale | Tilda Romero | Silver Quill
        Cousin Clockwork | Amara Vogel | Ferdinand Kay | Laurel Cup
        Don't Feed the Moon | Conrad Sizemore | Bianca Sol | Golden Mask
        Eleven Umbrellas | Olga Trent | Marcel Dupree | Velvet Rose
        Farewell to Fog | Stefan Bellamy | Ada Quist | Silver Quill
        Grandmother Thunder | Lotte Winslow | Ezekiel Moon | Laurel Cup
        House of Herrings | Theo Lachance | Saskia Bell | Velvet Rose
        An Inch of Winter | Margot Pell | Orson Tate | Golden Mask
        Jam on Thursdays | Caleb Stride | Wanda Fjord | Silver Quill
        The King's Left Shoe | Ilse Hartmann | Reginald Oak | Laurel Cup
        Letters to a Goose | Simon Applewhite | Carmen Lisk | Velvet Rose
        Mister Nobody's Hat | Freya Donnell | Bertrand Lowe | Golden Mask
        No Room for Pigeons | Alistair Munk | Delphine Ray | Silver Quill
        The Other Staircase | Hanna Sorrel | Nathaniel Bly | Laurel Cup
        Postcards Unsent | Victor Amadi | Giselle Hart | Velvet Rose
        Queen of the Attic | Brigid Nolan | Leopold Fry | Golden Mask
        Rust and Rosewater | Isaac Delgado | Minerva Cole | Silver Quill
        Seven Deaf Cats | Paulina Gray | Thaddeus Moss | Laurel Cup
        The Tailor Sleeps | Jonas Whitlock | Aurelia Dean | Velvet Rose
        """,
        (
            (
                "Who wrote the play {}?",
                "Which author is behind the play {}?",
                "Name the playwright of {}.",
                "The play {} was written by whom?",
            ),
            (
                "Who plays the lead in {}?",
                "Which actor stars in {}?",
                "Name the star of the play {}.",
                "The leading role in {} went to whom?",
            ),
            (
                "Which prize did {} win?",
                "What award was given to the play {}?",
                "Name the prize awarded to {}.",
                "The play {} received which award?",
            ),
        ),
    ),
)
