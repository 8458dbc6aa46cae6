import pytest

from gateway_contract.cluster_urls import ClusterAddress, ClusterUrlError, is_cluster_url, parse_cluster_url


class TestClusterUrl:
    @pytest.mark.parametrize(
        ("url", "address"),
        [
            ("redis+cluster://a", ClusterAddress((("a", 6379),))),
            ("redis+cluster://a:1,b:2,[::1]:3/", ClusterAddress((("a", 1), ("b", 2), ("::1", 3)))),
            ("redis+cluster://u:p%40s%2Cs@a:1", ClusterAddress((("a", 1),), username="u", password="p@s,s")),
            ("redis+cluster://:p@a:1,b:2", ClusterAddress((("a", 1), ("b", 2)), password="p")),
            (
                "rediss+cluster://a:1?ssl_ca_certs=/ca.pem",
                ClusterAddress((("a", 1),), tls=True, ca_file="/ca.pem"),
            ),
        ],
    )
    def test_is_read(self, url, address):
        assert is_cluster_url(url)
        assert parse_cluster_url(url) == address

    @pytest.mark.parametrize(
        "url",
        [
            "redis://secret:6379",
            "redis+cluster://",
            "redis+cluster://secret:port",
            "redis+cluster://secret:70000",
            "redis+cluster://a:1,,secret:2",
            "redis+cluster://secret:6379/1",
        ],
    )
    def test_of_another_form_is_refused_and_not_repeated(self, url):
        with pytest.raises(ClusterUrlError) as raised:
            parse_cluster_url(url)
        assert "secret" not in str(raised.value)

    def test_does_not_show_its_password(self):
        assert "p4ss" not in repr(parse_cluster_url("redis+cluster://u:p4ss@a:1"))
