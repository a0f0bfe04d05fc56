from tests import seconds


def test_a_table_has_long_files_and_each_function_with_a_slow_case() -> None:
    printed = (
        "2.00s setup    tests/a/test_long.py::test_one[x-1]\n"
        "1.50s call     tests/a/test_long.py::test_one[x-1]\n"
        "0.10s call     tests/a/test_long.py::test_one[y y]\n"
        "0.12s call     tests/a/test_long.py::test_other\n"
        "0.20s call     tests/test_short.py::test_one\n"
        "(9 durations < 0.005s hidden.)\n"
    )
    assert seconds.table(printed) == ("3.7 a/test_long.py\n3.5 a/test_long.py::test_one\n0.2 test_short.py::test_one\n")


def test_the_table_names_files_that_exist() -> None:
    files = {name.partition("::")[0] for name in seconds.read()}
    assert not [file for file in files if not (seconds.TESTS / file).is_file()]
