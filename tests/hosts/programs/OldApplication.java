// Java's HttpsURLConnection, as in programs since Java 1.4. Usage: java OldApplication.java REFRESH_TOKEN; trust by
// -Djavax.net.ssl.trustStore, proxy by -Dhttps.proxyHost and -Dhttps.proxyPort.
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.net.ssl.HttpsURLConnection;

public class OldApplication {
    public static void main(String[] arguments) throws Exception {
        String form = "grant_type=refresh_token&client_id=old-application&refresh_token=" + arguments[0];
        String token = find("access_token", call("https://identity-cus.aligntech.com/oauth2/token", null, form));
        String orders = call("https://api-proxy.aligntech.com/itero-gen-api/v2/orders/practice", token, null);
        String link = find("Url", orders);
        if (!link.startsWith("https://api-proxy.aligntech.com/")) {
            throw new IllegalStateException(link);
        }
        String file = call(link, token, null);
        if (file.isEmpty()) {
            throw new IllegalStateException("nothing downloaded");
        }
        System.out.println("downloaded " + file.length() + " bytes");
    }

    static String call(String url, String token, String form) throws Exception {
        HttpsURLConnection call = (HttpsURLConnection) new URL(url).openConnection();
        if (token != null) {
            call.setRequestProperty("Authorization", "Bearer " + token);
        }
        if (form != null) {
            call.setDoOutput(true);
            call.getOutputStream().write(form.getBytes(StandardCharsets.ISO_8859_1));
        }
        ByteArrayOutputStream body = new ByteArrayOutputStream();
        try (InputStream answer = call.getInputStream()) {
            byte[] buffer = new byte[8192];
            for (int read; (read = answer.read(buffer)) > 0;) {
                body.write(buffer, 0, read);
            }
        }
        return body.toString("ISO-8859-1");
    }

    static String find(String field, String json) {
        Matcher found = Pattern.compile("\"" + field + "\": *\"([^\"]*)\"").matcher(json);
        if (!found.find()) {
            throw new IllegalStateException("no " + field + " in " + json);
        }
        return found.group(1);
    }
}
