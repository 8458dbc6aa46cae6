"""A document as PDF, on A4. The same document gives the same bytes.

Fira Sans prints Latin, Greek and Cyrillic letters, Noto Sans JP what it lacks of Japanese; other fonts can be
given. Letters are set one after the other: scripts that join or turn them (Arabic, Hindi) come out unshaped.
"""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from fpdf import FPDF
from fpdf.enums import Align, MethodReturnValue, XPos, YPos

from control_plane.billing.documents.model import WHOLE, Document, DocumentLine, Party, SummaryRow

FAMILY = "text"
MARGIN = 18.0
WIDTH = 210.0 - 2 * MARGIN
AMOUNT_WIDTH = 38.0
SUMMARY_WIDTH = 96.0
COLUMN_GAP = 8.0
FOOTER_Y = -15.0
INK = (22, 32, 44)
GREY = (82, 96, 109)
RULE = (214, 219, 225)
MARK_GREY = (246, 225, 214)


def render_pdf(document: Document, *, fonts: Sequence[Path] = ()) -> bytes:
    """Return the file. `fonts`: TrueType or OpenType files for letters that the fonts of our own lack."""
    page = _Page(document, fonts)
    page.write()
    return bytes(page.output())


@cache
def _own_fonts() -> tuple[Path, Path, Path]:
    """Return the files of the regular and the strong letters, and of the Japanese ones."""
    latin = Path(str(files("fontpkg_fira_sans"))) / "files"
    japanese = Path(str(files("pylopdf_fonts_jp")))
    return latin / "FiraSans-Regular.ttf", latin / "FiraSans-SemiBold.ttf", japanese / "NotoSansJP-Regular.otf"


class _Page(FPDF):
    """Draws one document; millimetres."""

    def __init__(self, document: Document, fonts: Sequence[Path]) -> None:
        super().__init__(orientation="portrait", unit="mm", format="A4")
        self._document = document
        regular, strong, japanese = _own_fonts()
        self.add_font(FAMILY, "", regular)
        self.add_font(FAMILY, "B", strong)
        fallbacks = [*fonts, japanese]
        for number, path in enumerate(fallbacks):
            self.add_font(f"more{number}", "", path)
        self.set_fallback_fonts([f"more{number}" for number in range(len(fallbacks))], exact_match=False)
        self.set_margins(MARGIN, MARGIN)
        self.c_margin = 0.0
        self.set_auto_page_break(auto=True, margin=22)
        self.set_lang("en")
        self.set_title(document.heading)
        self.set_author(document.seller.name)
        self.set_producer("kong-monetize")
        self.set_creation_date(document.made_at)
        self.alias_nb_pages("")  # texts that look like a placeholder stay as they are

    def header(self) -> None:
        if self._document.mark:
            self._draw_mark(self._document.mark.upper())
        self.set_text_color(*INK)
        self.set_draw_color(*RULE)

    def write(self) -> None:  # type: ignore[override]
        """Draw everything."""
        self.add_page()
        self._draw_head()
        self._draw_parties()
        self._draw_lines(self._document.lines)
        self._draw_summary(self._document.summary)
        self._draw_notes(self._document.notes)
        self._draw_footers()

    def _draw_mark(self, mark: str) -> None:
        self.set_font(FAMILY, "B", 110)
        self.set_text_color(*MARK_GREY)
        width = self.get_string_width(mark)
        with self.rotation(28, x=105, y=140):
            self.text(105 - width / 2, 152, mark)

    def _pen(self, *, size: float, style: str = "", grey: bool = False) -> None:
        self.set_font(FAMILY, style, size)
        self.set_text_color(*(GREY if grey else INK))

    def _block(
        self,
        x: float,
        y: float,
        width: float,
        rows: Sequence[tuple[str, float, str, bool]],
        align: Align = Align.L,
    ) -> float:
        """Write rows of (text, size, style, grey) below each other; returns where they end."""
        self.set_y(y)
        for text, size, style, grey in rows:
            self._pen(size=size, style=style, grey=grey)
            self.set_x(x)
            self.multi_cell(
                width,
                size * 0.5,
                text,
                align=align,
                new_x=XPos.LEFT,
                new_y=YPos.NEXT,
            )
        return self.get_y()

    def _draw_head(self) -> None:
        document, top = self._document, self.get_y()
        left = self._block(
            MARGIN,
            top,
            WIDTH / 2,
            [(document.title, 22, "B", False), (document.number or document.mark, 12, "", True)],
        )
        right = self._block(MARGIN + WIDTH / 2, top, WIDTH / 2, _party_rows(document.seller), Align.R)
        self.set_y(max(left, right) + 12)

    def _draw_parties(self) -> None:
        document, top = self._document, self.get_y()
        label = "Credited to" if document.title == "Credit note" else "Billed to"
        left = self._block(MARGIN, top, WIDTH / 2, [(label, 8.5, "", True), *_party_rows(document.buyer)])
        half = WIDTH / 2 - COLUMN_GAP
        x, y = MARGIN + WIDTH - half, top
        for name, text in document.facts:
            self._pen(size=9.5, grey=True)
            self.set_xy(x, y)
            self.cell(28, 5, name)
            self._pen(size=9.5)
            self.multi_cell(half - 28, 5, _unbroken(text), align=Align.R, new_x=XPos.LEFT, new_y=YPos.NEXT)
            y = self.get_y()
        self.set_y(max(left, y) + 12)

    def _draw_lines(self, lines: Sequence[DocumentLine]) -> None:
        self._draw_table_head()
        for line in lines:
            rows = [(line.description, 10.0, "", False), *((text, 8.5, "", True) for text in line.explanation)]
            height = sum(self._height(text, size, WIDTH - AMOUNT_WIDTH - COLUMN_GAP) for text, size, _, _ in rows)
            if self.will_page_break(height + 7):
                self.add_page()
                self._draw_table_head()
            top = self.get_y() + 2.5
            self._pen(size=10)
            self.set_xy(MARGIN + WIDTH - AMOUNT_WIDTH, top)
            self.cell(AMOUNT_WIDTH, 5, line.amount, align=Align.R)
            end = self._block(MARGIN, top, WIDTH - AMOUNT_WIDTH - COLUMN_GAP, rows) + 2.5
            self.set_draw_color(*RULE)
            self.line(MARGIN, end, MARGIN + WIDTH, end)
            self.set_y(end)

    def _draw_table_head(self) -> None:
        self._pen(size=9, style="B")
        self.set_x(MARGIN)
        self.cell(WIDTH - AMOUNT_WIDTH, 6, "Description")
        self.cell(AMOUNT_WIDTH, 6, "Amount", align=Align.R, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.set_draw_color(*INK)
        self.line(MARGIN, self.get_y(), MARGIN + WIDTH, self.get_y())

    def _draw_summary(self, rows: Sequence[SummaryRow]) -> None:
        self.ln(3)
        x, label_width = MARGIN + WIDTH - SUMMARY_WIDTH, SUMMARY_WIDTH - AMOUNT_WIDTH
        if self.will_page_break(sum(8 for _ in rows) + 10):
            self.add_page()
        for row in rows:
            size, style = (11.5, "B") if row.strong else (9.5, "")
            if row.strong:
                self.set_draw_color(*INK)
                self.line(x, self.get_y() + 1, MARGIN + WIDTH, self.get_y() + 1)
                self.ln(2)
            self._pen(size=size, style=style)
            top = self.get_y()
            self.set_xy(MARGIN + WIDTH - AMOUNT_WIDTH, top)
            self.cell(AMOUNT_WIDTH, 5.5, row.amount, align=Align.R)
            self.set_xy(x, top)
            self.multi_cell(label_width, 5.5, row.label, align=Align.L, new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def _draw_notes(self, notes: Sequence[str]) -> None:
        if not notes:
            return
        self.ln(10)
        for note in notes:
            self._pen(size=9.5)
            self.set_x(MARGIN)
            self.multi_cell(WIDTH, 4.8, note, align=Align.L, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
            self.ln(1.5)

    def _draw_footers(self) -> None:
        """Draw what stands below each page: only now is it known how many there are."""
        parts = [self._document.heading, self._document.mark]
        left = " · ".join(part for part in parts if part)
        self.set_auto_page_break(auto=False)
        for number in range(1, self.pages_count + 1):
            self.page = number
            self.font_family = ""  # so that each page names the font
            self._pen(size=8, grey=True)
            self.set_xy(MARGIN, FOOTER_Y)
            self.cell(WIDTH, 5, left)
            self.set_x(MARGIN)
            self.cell(WIDTH, 5, f"Page {number} of {self.pages_count}", align=Align.R)

    def _height(self, text: str, size: float, width: float) -> float:
        self.set_font(FAMILY, "", size)
        height = self.multi_cell(width, size * 0.5, text, dry_run=True, output=MethodReturnValue.HEIGHT)
        return float(height)  # type: ignore[arg-type]  # what HEIGHT alone gives is a number


def _unbroken(text: str) -> str:
    """Return a text in which dates are not broken; at a hyphen nothing is."""
    return WHOLE.sub(lambda found: found[0].replace(" ", "\u00a0"), text)


def _party_rows(party: Party) -> list[tuple[str, float, str, bool]]:
    return [(party.name, 10.5, "B", False), *((line, 9.5, "", False) for line in party.lines)]
