// Java's HttpURLConnection, what programs from before Java 11 use. Usage: java UrlConnection.java PLAN OUT
import java.io.InputStream;
import java.io.PrintStream;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

public class UrlConnection {
    public static void main(String[] arguments) throws Exception {
        String out = arguments[1];
        for (String line : Files.readAllLines(Path.of(arguments[0]))) {
            String[] part = line.split("\t");
            HttpURLConnection call = (HttpURLConnection) new URL(part[2]).openConnection();
            call.setRequestMethod(part[1]);
            if (!part[4].equals("-")) {
                for (String field : part[4].split("\\|")) {
                    int colon = field.indexOf(": ");
                    call.addRequestProperty(field.substring(0, colon), field.substring(colon + 2));
                }
            }
            if (!part[3].equals("-")) {
                call.setDoOutput(true);
                call.getOutputStream().write(Files.readAllBytes(Path.of(part[3])));
            }
            int status = call.getResponseCode();
            InputStream stream = status >= 400 ? call.getErrorStream() : call.getInputStream();
            byte[] body = stream == null ? new byte[0] : stream.readAllBytes();
            Files.write(Path.of(out, part[0] + ".body"), body);
            try (PrintStream head = new PrintStream(out + "/" + part[0] + ".head", "ISO-8859-1")) {
                head.println(status);
                for (Map.Entry<String, List<String>> field : call.getHeaderFields().entrySet()) {
                    if (field.getKey() == null) continue;
                    for (String value : field.getValue()) head.println(field.getKey() + ": " + value);
                }
            }
        }
    }
}
