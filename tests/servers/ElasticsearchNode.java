import java.nio.file.Path;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.PluginsLoader;

/**
 * One Elasticsearch node for tests, without the distribution: called with its home folder, its HTTP port and its transport port.
 *
 * <p>A source-file launch: the jars lie on the module path, and this file is compiled as it starts. It ends with SIGTERM, after
 * the node has closed its shards.
 */
final class ElasticsearchNode {
    private static final String NAME = "keytrail-test";

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 3) {
            System.err.println("usage: ElasticsearchNode HOME HTTP_PORT TRANSPORT_PORT");
            System.exit(64);
        }
        // Loggers first: other classes of Elasticsearch take theirs while they are loaded.
        LogConfigurator.configureESLogging();
        LogConfigurator.setNodeName(NAME);

        Path home = Path.of(arguments[0]);
        Settings settings = settings(home, arguments[1], arguments[2]);
        Environment environment =
            InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), home.resolve("config"), () -> NAME);
        LogConfigurator.configureWithoutConfig(settings);

        PluginsLoader plugins = PluginsLoader.createPluginsLoader(
            PluginsLoader.loadModulesBundles(home.resolve("modules"), false), Set.of(), Map.of());
        Node node = new Node(environment, plugins);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> close(node), "close-node"));
        node.start();
        new CountDownLatch(1).await();
    }

    private static Settings settings(Path home, String httpPort, String transportPort) {
        return Settings.builder()
            .put("path.home", home.toString())
            .put("path.data", home.resolve("data").toString())
            .put("cluster.name", NAME)
            .put("node.name", NAME)
            .put("discovery.type", "single-node")
            .put("network.host", "127.0.0.1")
            .put("http.port", httpPort)
            .put("transport.port", transportPort)
            // A nearly full disk would turn indices read-only, and a test into a riddle.
            .put("cluster.routing.allocation.disk.threshold_enabled", false)
            .build();
    }

    private static void close(Node node) {
        try {
            node.close();
        } catch (Exception failure) {
            failure.printStackTrace();
        }
    }
}
