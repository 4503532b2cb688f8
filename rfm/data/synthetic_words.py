"""Words of synthetic databases: domains with their tables and columns, names, sentences.

A domain is a block of lines, one table each:

    role name(parents) columns

Roles: ``lookup`` (small, static), ``entity`` (a thing that lives), ``event`` (something that
happens to its first parent, an entity), ``item`` (part of its first parent, an event) and
``bridge`` (connects two entities). A parent is ``table`` or ``table.word``, where the word names
the foreign key (``team.home_team``); a table that is its own parent is a self-reference.
Columns: ``word:f`` float, ``:i`` integer, ``:h`` heavy tailed, ``:b`` boolean, ``:d`` datetime,
``:t`` sentence, ``:n`` name of a thing, ``:p`` name of a person, ``word=a|b|c`` category.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

DOMAINS = """
shop
lookup category() name:n margin:f department=home|garden|fashion|food|toys
lookup region() name:n population:h climate=mild|cold|hot|dry
entity customer(region customer.referred_by) name:p age:i newsletter:b segment=new|regular|vip
entity product(category supplier) title:n price:h weight:f color=red|blue|green|black|white
entity supplier(region) name:n rating:f certified:b tier=bronze|silver|gold
entity store(region) name:n floor_area:h opened:d format=outlet|mall|online
event purchase(customer store) total:h coupon:b channel=web|app|store|phone note:t
event review(customer product) stars:i helpful_votes:h verified:b comment:t
event visit(customer store) minutes:f pages:i device=phone|tablet|desktop
item purchase_line(purchase product) quantity:i discount:f gift:b
event delivery(supplier product) units:i late_days:f damaged:b
bridge wishlist(customer product) priority:i

clinic
lookup specialty() name:n demand:f setting=ward|office|theatre
lookup diagnosis() name:n severity:f family=heart|lung|skin|bone|nerve
entity patient(insurer) name:p birth_date:d smoker:b blood_type=a|b|ab|o weight:f
entity doctor(specialty doctor.supervisor) name:p experience:i shift=day|night|mixed
entity insurer() name:n premium:h plan=basic|plus|full
entity medicine(supplier) name:n dose:f price:h form=tablet|syrup|injection
entity supplier() name:n country=france|japan|brazil|india rating:f
event appointment(patient doctor) wait_minutes:f urgent:b reason:t kind=new|control|phone
event admission(patient diagnosis) nights:i cost:h ward=a|b|c|intensive
event lab_test(patient doctor) value:f abnormal:b panel=blood|urine|imaging
item prescription(appointment medicine) days:i refills:i
event complaint(patient doctor) seriousness:i report:t
bridge allergy(patient medicine) level=mild|strong

school
lookup subject() title:n difficulty:f branch=science|language|art|sport
lookup campus() name:n capacity:h setting=city|suburb|village
entity student(campus student.mentor) name:p age:i scholarship:b house=oak|elm|ash|pine
entity teacher(subject campus) name:p salary:h degree=bachelor|master|doctor
entity course(subject teacher) title:n credits:i level=intro|middle|advanced
entity club(campus) name:n fee:f activity=chess|drama|music|robotics
event enrollment(student course) motivation:f paid:b mode=full|part|remote
event exam(student course) score:f duration:f retake:b remark:t
event absence(student teacher) hours:f excused:b reason:t
event meeting(teacher student) minutes:i topic=grades|conduct|career
item homework(enrollment) points:f late:b effort=low|medium|high
bridge membership(student club) role=member|captain

league
lookup division() name:n prestige:f sport=football|hockey|rugby
lookup venue() name:n capacity:h surface=grass|clay|indoor
entity team(division venue) name:n budget:h founded:d style=attack|defence|balanced
entity player(team agent) name:p height:f left_handed:b position=keeper|back|middle|front
entity referee(division) name:p strictness:f licence=national|regional
entity agent() name:p commission:f big_city:b
event fixture(team team.away_team venue referee) attendance:h goals:i weather=sun|rain|snow
event injury(player) days_out:i body_part=knee|ankle|back|head report:t
event training(player) intensity:f minutes:i indoor:b
event transfer(player team) fee:h loan:b comment:t
item goal(fixture player) minute:i own_goal:b
bridge fan_club(team venue) members:h

library
lookup genre() name:n popularity:f audience=adult|youth|child
lookup branch() name:n shelves:i area=north|south|east|west
entity member(branch member.guardian) name:p age:i student:b level=basic|plus|premium
entity author(publisher) name:p born:d awards:i style=modern|classic|pulp
entity book(author genre) title:n pages:i price:h format=hardcover|paperback|audio
entity publisher() name:n staff:h country=spain|canada|kenya|norway
event loan(member book) days:i renewed:b desk=front|self|mobile
event reservation(member book) queue:i notified:b
event fine(member branch) amount:h paid:b reason=late|lost|damaged note:t
event story_hour(author branch) guests:i length:f topic:t
item loan_message(loan) channel=mail|phone|letter words:i text:t
bridge book_tag(book genre) weight:f

logistics
lookup country() name:n tariff:f zone=europe|asia|africa|america
lookup cargo_type() name:n density:f hazard=none|fire|toxic
entity warehouse(country) name:n capacity:h cold:b security=low|medium|high
entity carrier(country carrier.parent_company) name:n fleet:i rating:f mode=road|rail|sea|air
entity truck(carrier) plate:n mileage:h fuel=diesel|gas|electric built:d
entity driver(carrier) name:p age:i licence=b|c|ce
entity client(country) name:n revenue:h priority=low|normal|high
event shipment(client carrier warehouse) weight:h fragile:b price:h instruction:t
event inspection(truck) defects:i passed:b finding:t level=quick|full
event trip(driver truck warehouse) distance:h hours:f delay:f
event claim(client carrier) amount:h accepted:b cause=loss|damage|delay text:t
item parcel(shipment cargo_type) volume:f insured:b
bridge contract(client carrier) discount:f

bank
lookup branch() name:n staff:i district=centre|harbour|hills|park
lookup merchant_group() name:n risk:f sector=food|travel|fuel|games
entity customer(branch customer.household_head) name:p income:h married:b education=basic|high|phd
entity account(customer branch) balance:h opened:d currency=eur|usd|gbp overdraft:b
entity card(account) credit_limit:h network=blue|green|silver contactless:b
entity merchant(merchant_group) name:n turnover:h online:b
event payment(card merchant) amount:h foreign:b entry=chip|swipe|web
event transfer(account account.target_account) amount:h recurring:b purpose:t
event login(customer) minutes:f device=phone|desktop|tablet failed:b
event loan_request(customer branch) amount:h months:i approved:b story:t
item dispute(payment) days:i reason=fraud|error|quality text:t
bridge signatory(customer account) right=view|sign

forum
lookup topic() name:n activity:f tone=serious|casual|fun
lookup badge() name:n points:i metal=bronze|silver|gold
entity member(badge member.invited_by) alias:p reputation:h verified:b about:t
entity board(topic) title:n rules:i access=open|closed|invite
entity bot(board) name:n accuracy:f purpose=spam|help|stats
entity moderator(board) alias:p strictness:f years:i
event question(member board) title:t views:h closed:b score:i
event vote(member board) value:i anonymous:b
event award(member badge) reputation:i automatic:b
event report(member moderator) severity:i text:t outcome=kept|removed
item answer(question member) score:i accepted:b body:t
item edit(question) size:h minor:b
bridge subscription(member board) digest:b

airline
lookup airport() name:n runways:i altitude:f continent=europe|asia|america
lookup aircraft_type() name:n seats:i maker=north|south|union
entity plane(aircraft_type) tail_number:n built:d range:h owner=leased|owned
entity route(airport airport.destination) label:n distance:h traffic=business|holiday
entity passenger(airport) name:p age:i member_tier=none|blue|gold
entity pilot(airport pilot.instructor) name:p hours:h rank=captain|officer
event flight(plane route pilot) delay:f load:f weather=clear|storm|fog diverted:b
event booking(passenger route) fare:h bags:i cabin=economy|business
event repair(plane airport) cost:h hours:f finding:t planned:b
event survey(passenger route) score:i comment:t
item boarding(flight passenger) seat_row:i upgraded:b
bridge rating(pilot aircraft_type) valid:b

hotel
lookup city() name:n visitors:h coast:b
lookup room_type() name:n beds:i view=sea|garden|street
entity hotel(city chain) name:n stars:i pool:b rooms:h
entity chain() name:n hotels:i brand=luxury|family|budget
entity guest(city guest.companion) name:p age:i vip:b language=english|german|thai|greek
entity employee(hotel employee.reports_to) name:p wage:h job=desk|kitchen|cleaning
event reservation(guest hotel room_type) nights:i price:h source=web|agency|phone wish:t
event review(guest hotel) rating:f text:t would_return:b
event shift(employee hotel) hours:f night:b
event repair(hotel employee) cost:h urgent:b problem:t
item room_order(reservation) amount:h dish=soup|salad|pasta|cake
bridge partner(hotel chain) since_years:i

streaming
lookup genre() name:n share:f mood=dark|light|tense
lookup studio() name:n budget:h market=global|local
entity show(genre studio) title:n episodes:i rating:f maturity=all|teen|adult
entity subscriber(plan subscriber.shared_with) name:p age:i trial:b device=tv|phone|laptop
entity plan() name:n fee:f screens:i quality=sd|hd|uhd
entity actor(studio) name:p fame:h born:d
event viewing(subscriber show) minutes:f finished:b hour=morning|noon|evening
event rating(subscriber show) stars:i comment:t
event invoice(subscriber plan) amount:h failed:b method=card|bank|voucher
event support_ticket(subscriber) minutes:i solved:b message:t
item pause(viewing) position:f reason=buffer|user
bridge casting(show actor) lead:b

factory
lookup line() name:n speed:f hall=one|two|three
lookup material() name:n hardness:f origin=mine|farm|plant
entity machine(line vendor machine.feeds) serial:n power:h age:i mode=manual|auto
entity worker(line worker.reports_to) name:p wage:h skilled:b shift=early|late|night
entity vendor() name:n reliability:f size=small|medium|large
entity part(material vendor) label:n weight:f cost:h finish=raw|painted|polished
event breakdown(machine worker) hours:f cost:h diagnosis:t cause=wear|power|error
event batch(machine part) units:i scrap:f temperature:f
event maintenance(machine) minutes:f planned:b remark:t
event delivery(vendor material) tons:h delay:f accepted:b
item inspection(batch worker) defects:i passed:b
bridge skill(worker machine) level:i
"""

SATELLITES = (
    "event {0}_note({0}) text:t length:i pinned:b",
    "event {0}_status({0}) state=active|paused|closed score:f",
    "event {0}_contact({0}) minutes:f answered:b channel=phone|mail|visit",
    "event {0}_measurement({0}) value:f error:f unit=small|large",
    "event {0}_alert({0}) severity:i handled:b message:t",
)
"""Tables that any entity can have; they fill a schema up to the wanted number of tables."""

SPARE_COLUMNS = {
    "f": ("score", "ratio", "index", "level", "trend", "temperature", "quality"),
    "i": ("count", "position", "version", "number_of_changes", "steps"),
    "h": ("amount", "value", "volume", "budget", "distance"),
    "b": ("active", "flagged", "confirmed", "external", "visible"),
    "=": (
        "status=open|pending|done|failed",
        "grade=a|b|c|d|e",
        "kind=standard|special|custom",
        "source=import|manual|partner",
        "size=small|medium|large",
        "language=english|french|spanish|hindi|arabic",
    ),
    "t": ("description", "remarks", "summary"),
    "d": ("updated_at", "due_date", "valid_until"),
}


def split_words(text: str, separator: str = " ") -> tuple[str, ...]:
    return tuple(text.split(separator))


FIRST_NAMES = split_words(
    "Ada Ben Carla Dmitri Elena Femi Grace Hiro Ines Jonas Kofi Lena Marta Nadia Omar Priya "
    "Quentin Rosa Samir Tara Ulla Viktor Wanda Xin Yusuf Zoe Anton Bianca Chen Dora Emil Farah"
)
LAST_NAMES = split_words(
    "Abbott Bauer Costa Diaz Eriksen Fischer Garcia Haddad Ito Jensen Khan Lopez Moreau Nowak "
    "Okafor Patel Quinn Rossi Silva Tanaka Usman Varga Weber Xu Young Zhang Adeyemi Blake Conti "
    "Dubois Evans Flores Gupta Holm Ivanov Jones Keller Larsen Meyer Novak"
)
PLACE_WORDS = split_words(
    "Northern Silver Grand Old Royal Green Central River Stone Golden Blue Upper Sunny Iron Quiet "
    "Crystal Maple Harbor Eagle Summit"
)
THING_WORDS = split_words(
    "Valley Bridge Point Garden House Star Field Works Line Park Forge Mill Gate Crown Lake Ridge "
    "Tower Square Spring Harvest"
)
OPENINGS = split_words(
    "Terrible experience:|Rather poor,|Below what we hoped,|Average overall,|Quite good,|"
    "Very good indeed,|Excellent in every way:",
    "|",
)
VERBS = split_words(
    "was cancelled|arrived late|needed a second try|was changed|went as planned|was quick|"
    "exceeded the plan",
    "|",
)
TAILS = split_words(
    "and nobody answered|and we asked for help|because of the weather|after a long wait|"
    "thanks to the staff|with a small extra|and we will return|as agreed before",
    "|",
)


@dataclass(frozen=True)
class ColumnWord:
    """A column as the vocabulary knows it: its word, its kind letter, category options."""

    word: str
    kind: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableWord:
    """A table as the vocabulary knows it; ``parents`` are (table, word of the foreign key)."""

    role: str
    name: str
    parents: tuple[tuple[str, str], ...]
    columns: tuple[ColumnWord, ...]


def parse_column(text: str) -> ColumnWord:
    if "=" in text:
        word, options = text.split("=")
        return ColumnWord(word, "=", tuple(options.split("|")))
    word, kind = text.split(":")
    return ColumnWord(word, kind)


def parse_table(line: str) -> TableWord:
    head, _, columns = line.partition(")")
    role, _, rest = head.partition(" ")
    name, _, parents = rest.partition("(")
    pairs = [parent.partition(".") for parent in parents.split()]
    return TableWord(
        role=role,
        name=name,
        parents=tuple((table, word or table) for table, _, word in pairs),
        columns=tuple(parse_column(text) for text in columns.split()),
    )


@cache
def read_domains() -> dict[str, tuple[TableWord, ...]]:
    """Domain name -> its tables."""
    blocks = [block.splitlines() for block in DOMAINS.strip().split("\n\n")]
    return {block[0]: tuple(parse_table(line) for line in block[1:]) for block in blocks}


def plural(word: str) -> str:
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def spell(words: str, style: str) -> str:
    """Spell ``snake_case`` words in a naming style: ``snake``, ``camel`` or ``pascal``."""
    if style == "snake":
        return words
    parts = [part.capitalize() for part in words.split("_")]
    return "".join([parts[0].lower(), *parts[1:]] if style == "camel" else parts)
