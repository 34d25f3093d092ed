// Java's java.net.http.HttpClient, which offers HTTP/2 with every first call. Usage: java JavaClient.java PLAN OUT
import java.io.PrintStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;

public class JavaClient {
    public static void main(String[] arguments) throws Exception {
        String out = arguments[1];
        HttpClient client = HttpClient.newHttpClient();
        for (String line : Files.readAllLines(Path.of(arguments[0]))) {
            String[] part = line.split("\t");
            HttpRequest.BodyPublisher body = part[3].equals("-")
                ? HttpRequest.BodyPublishers.noBody()
                : HttpRequest.BodyPublishers.ofFile(Path.of(part[3]));
            HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(part[2])).method(part[1], body);
            if (!part[4].equals("-")) {
                for (String field : part[4].split("\\|")) {
                    int colon = field.indexOf(": ");
                    request.header(field.substring(0, colon), field.substring(colon + 2));
                }
            }
            HttpResponse<byte[]> answer = client.send(request.build(), HttpResponse.BodyHandlers.ofByteArray());
            Files.write(Path.of(out, part[0] + ".body"), answer.body());
            try (PrintStream head = new PrintStream(out + "/" + part[0] + ".head", "ISO-8859-1")) {
                head.println(answer.statusCode());
                answer.headers().map().forEach(
                    (name, values) -> values.forEach(value -> head.println(name + ": " + value)));
            }
        }
    }
}
