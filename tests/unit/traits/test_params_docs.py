from pathlib import Path

import yaml

from muster.traits.params import ParamsFile, read_traits_file

DOCS = Path(__file__).parents[3] / "docs" / "traits.md"


def test_example_in_the_docs_is_read_and_shows_every_key(tmp_path: Path) -> None:
    text = DOCS.read_text().split("```yaml\n")[1].split("```")[0]
    path = tmp_path / "params.yaml"
    path.write_text(text)
    read = read_traits_file(path)
    assert set(yaml.safe_load(text)) == set(ParamsFile.model_fields)
    assert read.infer_params(trait_set="splot").bundle_uri("X50") == str(
        tmp_path / "models" / "splot" / "X50"
    )
