"""The packaged studies plan what the papers say."""

import json

import pytest

from byol_tf.config.loading import load_config, resolved_json
from byol_tf.config.schema import Config
from byol_tf.study.plan import PlannedCell
from byol_tf.study.schema import SCALES
from pipelines.policy import ViewPolicy
from tests.helpers.studies import planned


def cell(name: str, row: str, column: str = "", scale: str = "paper") -> PlannedCell:
    """The one with this row and column."""
    (found,) = [
        each for each in planned(name, scale) if (each.cell.row, each.cell.column) == (row, column)
    ]
    return found


def config(name: str, row: str, column: str = "", scale: str = "paper") -> Config:
    return cell(name, row, column, scale).config


def differing(one: Config, other: Config) -> set[str]:
    """The sections and keys whose values differ, but for name and comment."""
    first, second = (json.loads(resolved_json(each)) for each in (one, other))
    return {key for key in first if first[key] != second[key]} - {"name", "about", "$schema"}


def views_of(scale: str) -> tuple[ViewPolicy, ViewPolicy]:
    """No augmentation, and the paper's; at small scale BYOL's milder ones, of few-photos-byol."""
    plain = load_config("stl10", ["views.preset=none"]).views.first
    if scale == "paper":
        return plain, load_config("stl10").views.first
    return plain, load_config("few-photos-byol", ["views.first.blur_probability=0.5"]).views.first


STRENGTHS = {"brightness", "contrast", "contrast_center", "saturation", "hue"}


def switched_off(policy: ViewPolicy) -> bool:
    """Returns whether a policy leaves images as they are."""
    names = [name for name in ViewPolicy.model_fields if name.endswith("_probability")]
    return policy.crop_area == (1.0, 1.0) and not any(getattr(policy, name) for name in names)


class TestSTL10:
    def test_the_baseline_is_the_recipe(self):
        for table, row, column in (
            (2, "Baseline", "BYOL"),
            (3, "All augmentations (baseline)", ""),
            (4, "All five (baseline)", "removed"),
        ):
            assert (
                differing(config(f"stl10-table{table}", row, column), load_config("stl10")) == set()
            )

    def test_table_1_varies_both_sets(self):
        quarter = cell("stl10-table1", "1/8 fine-tune", "1/4 byol")
        assert (quarter.config.data.pretrain_images, quarter.words) == (
            25_000,
            ("finetune", "--preset", "stl10", "--fraction", "0.125", "--seeds", "1"),
        )
        assert quarter.cell.paper == 35.9
        none = cell("stl10-table1", "full fine-tune", "no byol")
        words = ("supervised", "--preset", "stl10", "--seeds", "1")
        assert (none.words, none.cell.paper) == (words, 55.1)
        assert (
            config("stl10-table1", "1/8 fine-tune", "1/8 byol", "small").data.pretrain_images == 875
        )

    def test_table_1_needs_four_runs_for_its_twenty_cells(self):
        cells = planned("stl10-table1")
        assert (len(cells), len({each.run_name for each in cells})) == (20, 4)

    def test_table_2_changes_the_heads_alone(self):
        base = load_config("stl10")
        without = config("stl10-table2", "No predictor", "BYOL")
        assert (without.predictor.kind, differing(without, base)) == ("none", {"predictor"})
        plain = config("stl10-table2", "No BatchNorm in the heads", "BYOL")
        assert (
            plain.projector.normalization,
            plain.predictor.normalization,
            plain.encoder.normalization,
        ) == ("none", "none", "batch")

    def test_table_2_judges_the_baseline_from_scratch_too(self):
        supervised = cell("stl10-table2", "Baseline", "supervised-only")
        assert supervised.words[0] == "supervised"
        assert supervised.run_name == cell("stl10-table2", "Baseline", "BYOL").run_name

    @pytest.mark.parametrize("scale", SCALES)
    def test_table_3_leaves_the_targets_input_as_it_is(self, scale):
        plain, augmented = views_of(scale)
        nothing = config("stl10-table3", "No augmentations", scale=scale)
        assert nothing.views.first == nothing.views.second == plain
        target = config("stl10-table3", "No augmentations on target input", scale=scale)
        assert (
            target.objective.symmetrization == "asymmetric"
        )  # the first view predicts the second, which is the target's
        assert switched_off(target.views.second)
        assert target.views.first == augmented

    @pytest.mark.parametrize("scale", SCALES)
    def test_table_4_has_one_or_all_but_one(self, scale):
        plain, all_five = views_of(scale)
        keys = {
            "Grayscale": {"grayscale_probability"},
            "Horizontal flip": {"flip_probability"},
            "Color jitter": {"jitter_probability"},
            "Gaussian blur": {"blur_probability"},
            "Patch selection": {"crop_area", "crop_aspect"},
        }
        strengths = {"Color jitter": STRENGTHS, "Gaussian blur": {"blur_kernel_size", "blur_sigma"}}
        for row, changed in keys.items():
            for column, start, end in (("only", plain, all_five), ("removed", all_five, plain)):
                views = config("stl10-table4", row, column, scale).views
                names = changed | (strengths.get(row, set()) if column == "only" else set())
                expected = start.model_copy(update={name: getattr(end, name) for name in names})
                assert views.first == views.second == expected, (row, column)

    def test_table_5_adds_each_augmentation_three_ways(self):
        drop = config("stl10-table5", "Patch drop", "all except patch selection").views.first
        assert (drop.patch_drop_probability, drop.crop_area, drop.flip_probability) == (
            1.0,
            (1.0, 1.0),
            0.5,
        )
        assert config("stl10-table5", "Patch drop", "only").views.second.flip_probability == 0.0
        assert config("stl10-table5", "Perspective", "all").views.second.crop_area == (0.08, 1.0)

    def test_table_6_keeps_tau_constant(self):
        taus = [
            (each.config.tau.schedule, each.config.tau.base, each.cell.paper)
            for each in planned("stl10-table6")
        ]
        papers = (
            (0.1, 64.0),
            (0.5, 65.1),
            (0.9, 70.2),
            (0.995, 71.5),
            (0.999, 71.3),
            (0.9999, 66.5),
        )
        assert taus == [("constant", tau, figure) for tau, figure in papers]

    def test_table_7_drops_the_target(self):
        drops = [
            (each.config.tau.schedule, each.config.tau.drop_at) for each in planned("stl10-table7")
        ]
        assert drops == [("constant", None), ("drop", 0.25), ("drop", 0.5)]

    def test_table_8_goes_up_and_down(self):
        taus = [each.config.tau for each in planned("stl10-table8")]
        assert [(tau.schedule, tau.base) for tau in taus] == [
            ("constant", 0.999),
            ("cosine", 0.996),
            ("inverse_cosine", 0.999),
        ]
        assert [tau.resolved_end for tau in taus[1:]] == [1.0, 0.5]

    def test_small_tables_share_runs(self):
        """Their baselines are one run, and the constant tau of 7 and 8 is a row of 6."""
        names = {
            table: {each.run_name for each in planned(f"stl10-table{table}", "small")}
            for table in range(1, 9)
        }
        assert set.intersection(*(names[table] for table in range(1, 6)))
        assert names[6] & names[7] & names[8]


class TestSimSiam:
    def test_the_baseline_is_the_recipe(self):
        recipe = load_config("imagenet-simsiam")
        assert differing(config("simsiam-e", "Cosine (baseline)"), recipe) == set()
        assert differing(config("simsiam-b", "Learned at a constant rate"), recipe) == set()

    @pytest.mark.parametrize("scale", SCALES)
    def test_a_stops_the_gradient_or_not(self, scale):
        assert config("simsiam-a", "With stop-gradient", scale=scale).objective.target == "online"
        assert (
            config("simsiam-a", "Without stop-gradient", scale=scale).objective.target
            == "online_with_gradient"
        )

    @pytest.mark.parametrize("scale", SCALES)
    def test_b_varies_the_predictor(self, scale):
        kinds = [
            (each.config.predictor.kind, each.config.predictor.schedule)
            for each in planned("simsiam-b", scale)
        ]
        wanted = [("mlp", None), ("mlp", "constant"), ("none", None), ("fixed", None)]
        assert list(dict.fromkeys(kinds)) == wanted
        assert (
            config("simsiam-b", "Learned (baseline)", scale=scale).optimizer.schedule == "cosine"
        )  # or "constant" would be the same

    def test_c_scales_the_rate_and_warms_up_large_batches(self):
        for each in planned("simsiam-c"):
            optimizer, size = each.config.optimizer, each.config.training.batch_size
            assert (optimizer.base_learning_rate, optimizer.reference_batch_size) == (0.05, 256)
            assert optimizer.warmup_epochs == (10 if size >= 1024 else 0)
        rates = {
            each.config.training.batch_size: each.config.optimizer.base_learning_rate
            for each in planned("simsiam-c", "small")
        }
        assert rates == {
            size: pytest.approx(0.001 * size / 64) for size in (16, 32, 64, 128, 256, 512)
        }

    def test_d_normalises_the_heads_ever_more(self):
        heads = []
        for each in planned("simsiam-d"):
            projector, predictor = each.config.projector, each.config.predictor
            assert projector.output_scale == projector.output_center
            heads.append(
                (
                    projector.normalization,
                    projector.normalize_output,
                    projector.output_scale,
                    predictor.normalization,
                    predictor.normalize_output,
                )
            )
        assert heads == [
            ("none", False, True, "none", False),
            ("batch", False, True, "batch", False),
            ("batch", True, True, "batch", False),
            ("batch", True, False, "batch", False),
            ("batch", True, True, "batch", True),
        ]
        assert [each.cell.paper for each in planned("simsiam-d")] == [34.6, 67.4, 68.1, 68.2, None]

    def test_e_and_f_weigh_the_loss_as_the_report_does(self):
        """Half the sum over both directions; a direction alone, or the mean over two draws, in
        F."""
        assert config("simsiam-e", "Cross-entropy").objective.weight == 0.5
        weights = {
            each.config.objective.symmetrization: each.config.objective.weight
            for each in planned("simsiam-f")
        }
        assert weights == {"symmetric": 0.25, "asymmetric": 0.5, "asymmetric_2x": 0.25}


class TestBYOL:
    def test_the_baseline_is_the_recipe(self):
        recipe = load_config("imagenet-300")
        for name, row, column in (
            ("byol-batch-size", "4096", "BYOL"),
            ("byol-augmentations", "Baseline", "BYOL"),
            ("byol-tau", "Moving average, from 0.99", ""),
            ("byol-infonce", "predictor, target network, beta 0 (BYOL)", "alpha 0.1"),
        ):
            assert differing(config(name, row, column), recipe) == set()
        assert (
            differing(config("byol-encoders", "ResNet-50", "1x"), load_config("imagenet-1000"))
            == set()
        )

    def test_simclr_is_the_recipe_with_byols_views(self):
        assert differing(
            config("byol-augmentations", "Baseline", "SimCLR"), load_config("imagenet-simclr")
        ) == {"views", "encoder", "training"}  # zero scales and joint statistics are SimCLR's own

    def test_semi_supervised_fine_tunes_the_runs_of_the_encoders(self):
        """Table 2 of the paper, and 100% of the labels of its table 8."""
        cells = planned("byol-semi-supervised")
        assert {each.words[0] for each in cells} == {"semi-supervised"}
        assert cells[0].words[1:3] == ("--fraction", "0.01")
        assert {each.run_name for each in cells} < {
            each.run_name for each in planned("byol-encoders")
        }
        figures = [each.cell.paper for each in cells]
        assert figures == [53.2, 68.8, 77.7, 62.2, 73.5, 69.1, 75.7, 71.2, 77.7]

    @pytest.mark.parametrize("scale", SCALES)
    def test_transfer_evaluates_two_runs_on_images_that_they_take(self, scale, tmp_path):
        cells = planned("byol-transfer", scale)
        assert len({each.run_name for each in cells}) == 2
        for each in cells:
            file = tmp_path / f"{each.run_name}.json"
            file.write_text(resolved_json(each.config))
            protocol, *options = each.words
            assert protocol == "transfer"
            assert set(options[::2]) <= {"--set"}
            load_config(file, options[1::2])  # raises where the sizes don't fit
        papers = {
            "top1": [75.3, 91.3, 78.4, 57.2, 62.2, 67.8, 75.5],
            "mean_per_class": [60.6, 90.4, 94.2, 96.1],
        }
        for figure, values in papers.items():
            found = [each.cell.paper for each in cells if each.figure == figure]
            assert [value for value in found if value] == (values if scale == "paper" else [])

    def test_smaller_batches_are_parts_of_a_step(self):
        for each in planned("byol-batch-size"):
            training = each.config.training
            assert (
                training.batch_size,
                training.batch_size // training.gradient_accumulation_steps,
            ) == (
                4096,
                int(each.cell.row),
            )
        for each in planned("byol-batch-size", "small"):
            training = each.config.training
            assert (
                training.batch_size,
                training.batch_size // training.gradient_accumulation_steps,
            ) == (
                64,
                int(each.cell.row),
            )

    def test_the_targets_of_table_5a(self):
        taus = [
            (each.config.tau.schedule, each.config.tau.base, each.cell.paper)
            for each in planned("byol-tau")
        ]
        assert taus == [
            ("constant", 1.0, 18.8),
            ("cosine", 0.999, 69.8),
            ("cosine", 0.99, 72.5),
            ("cosine", 0.9, 68.4),
            ("constant", 0.0, 0.3),
        ]

    def test_the_variants_between_byol_and_simclr(self):
        """Table 5b: predictor, target network, beta."""
        variants = {}
        for each in planned("byol-infonce"):
            if each.cell.column == "alpha 0.1" and each.config.objective.negatives in (0.0, 1.0):
                key = (
                    each.config.predictor.kind == "mlp",
                    each.config.objective.target == "ema",
                    each.config.objective.negatives,
                )
                variants[key] = each.cell.paper
        assert variants == {
            (True, True, 0.0): 72.5,
            (True, True, 1.0): 70.9,
            (False, True, 1.0): 70.7,
            (False, False, 1.0): 69.4,
            (True, False, 1.0): 69.1,
            (True, False, 0.0): 0.3,
            (False, True, 0.0): 0.2,
            (False, False, 0.0): 0.1,
        }

    def test_encoders_are_the_papers_or_small_ones(self):
        sizes = {
            (each.config.encoder.name, each.config.encoder.width)
            for each in planned("byol-encoders")
        }
        assert len(sizes) == 12 and ("resnet200", 2.0) in sizes
        small = {each.config.encoder.name for each in planned("byol-encoders", "small")}
        assert small == {"convnet", "resnet18", "resnet34"}


class TestWithoutBatchStatistics:
    @pytest.mark.parametrize(
        "row, recipe",
        [
            ("Vanilla BN", "imagenet-1000"),
            ("Modified init", "imagenet-modified-init"),
            ("GN + WS", "imagenet-gn-ws"),
        ],
    )
    def test_table_2_is_the_recipes(self, row, recipe):
        assert differing(config("nobatchstats-table2", row), load_config(recipe)) == set()

    def test_gn_and_ws_have_the_papers_numbers(self):
        found = config("nobatchstats-table2", "GN + WS")
        assert {
            found.encoder.normalization,
            found.projector.normalization,
            found.predictor.normalization,
        } == {"group"}
        optimizer = found.optimizer
        assert (optimizer.weight_decay, optimizer.base_learning_rate, found.tau.base) == (
            3e-8,
            0.24,
            0.999,
        )

    def test_table_1_normalises_what_its_rows_and_columns_say(self):
        said = {"BN": "batch", "LN": "layer", "-": "none"}
        cells = planned("nobatchstats-table1")
        assert len(cells) == 22
        for each in cells:
            encoder, projector = (part.split()[1] for part in each.cell.row.split(", "))
            assert (each.config.encoder.normalization, each.config.projector.normalization) == (
                said[encoder],
                said[projector],
            )
            if each.cell.column == "SimCLR":
                assert (each.config.predictor.kind, each.config.objective.negatives) == (
                    "none",
                    1.0,
                )
            else:
                assert each.config.predictor.normalization == said[each.cell.column.split()[-1]]
