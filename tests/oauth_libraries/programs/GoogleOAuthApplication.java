// A legacy application whose OAuth is Google's OAuth client library for Java: AuthorizationCodeFlow for the login,
// Credential for every call afterwards, as its guide has it. Settings are environment variables, see README.md.
// Usage: java -cp JARS GoogleOAuthApplication.java
import com.google.api.client.auth.oauth2.AuthorizationCodeFlow;
import com.google.api.client.auth.oauth2.AuthorizationCodeRequestUrl;
import com.google.api.client.auth.oauth2.AuthorizationCodeResponseUrl;
import com.google.api.client.auth.oauth2.BearerToken;
import com.google.api.client.auth.oauth2.ClientParametersAuthentication;
import com.google.api.client.auth.oauth2.Credential;
import com.google.api.client.auth.oauth2.TokenResponse;
import com.google.api.client.http.BasicAuthentication;
import com.google.api.client.http.GenericUrl;
import com.google.api.client.http.HttpContent;
import com.google.api.client.http.HttpExecuteInterceptor;
import com.google.api.client.http.HttpRequest;
import com.google.api.client.http.HttpResponse;
import com.google.api.client.http.UrlEncodedContent;
import com.google.api.client.http.javanet.NetHttpTransport;
import com.google.api.client.http.json.JsonHttpContent;
import com.google.api.client.json.GenericJson;
import com.google.api.client.json.JsonObjectParser;
import com.google.api.client.json.gson.GsonFactory;
import com.google.api.client.util.Key;
import com.sun.net.httpserver.HttpServer;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.math.BigInteger;
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;

public class GoogleOAuthApplication {
    private static final String OAUTH = setting("OAUTH_BASE", "");
    private static final String TOKEN_URL = OAUTH + "/oauth2/token";
    private static final String DISCOVERY =
        "/api-discovery-by-name-and-version?discoveryName=third-party&version=2";
    private static final GsonFactory JSON = GsonFactory.getDefaultInstance();

    private final NetHttpTransport transport = new NetHttpTransport();
    private final HttpExecuteInterceptor clientAuthentication;
    private final AuthorizationCodeFlow flow;
    private Credential credential;
    private TokenResponse tokens;
    private String place;
    private Object account;
    private List<Order> listed;

    public static class Discovered { @Key("APIs") public List<Api> apis; }
    public static class Api { @Key("Domain") public String domain; @Key("Path") public String path; }
    public static class Accounts { @Key("Data") public List<Account> data; }
    public static class Account { @Key("AccountId") public Long id; }
    public static class Paired { @Key("Data") public PairedData data; }
    public static class PairedData { @Key("OAuthResponse") public TokenResponse tokens; }
    public static class Orders { @Key("Data") public List<Order> data; }
    public static class Order { @Key("URLs") public List<Link> links; }
    public static class Link { @Key("Url") public String url; }

    interface Work { String run() throws Exception; }

    public static void main(String[] arguments) throws Exception {
        GoogleOAuthApplication app = new GoogleOAuthApplication();
        boolean begun = step("login", app::logIn) && step("discovery", app::discover)
            && step("related-accounts", app::findAccount) && step("pair", app::pair);
        if (!begun) System.exit(1);
        Map<String, Work> commands = Map.of("refresh", app::refresh, "orders", app::orders,
            "download", app::download, "revoke", app::revoke);
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        for (String line = input.readLine(); line != null && !line.equals("quit"); line = input.readLine()) {
            step(line, commands.get(line));
        }
        System.exit(0);
    }

    GoogleOAuthApplication() {
        String id = setting("CLIENT_ID", ""), secret = setting("CLIENT_SECRET", "");
        clientAuthentication = setting("CLIENT_AUTH", "post").equals("basic")
            ? new BasicAuthentication(id, secret)
            : new ClientParametersAuthentication(id, secret);
        AuthorizationCodeFlow.Builder builder = new AuthorizationCodeFlow.Builder(
            BearerToken.authorizationHeaderAccessMethod(), transport, JSON, new GenericUrl(TOKEN_URL),
            clientAuthentication, id, OAUTH + "/oauth2/authorize").setScopes(List.of(setting("SCOPE", "openid")));
        flow = (setting("PKCE", "no").equals("yes") ? builder.enablePKCE() : builder).build();
    }

    String logIn() throws Exception {
        URI wanted = URI.create(setting("REDIRECT_URI", ""));
        HttpServer listener = HttpServer.create(new InetSocketAddress(wanted.getHost(), wanted.getPort()), 0);
        String origin = "http://" + wanted.getHost() + ":" + listener.getAddress().getPort();
        CompletableFuture<String> redirected = new CompletableFuture<>();
        listener.createContext(wanted.getPath(), exchange -> {
            byte[] page = "<p>You are logged in and may close this window.".getBytes(StandardCharsets.UTF_8);
            exchange.getResponseHeaders().set("Content-Type", "text/html");
            exchange.sendResponseHeaders(200, page.length);
            exchange.getResponseBody().write(page);
            exchange.close();
            redirected.complete(origin + exchange.getRequestURI());
        });
        listener.start();
        String redirectUri = origin + wanted.getPath();
        String state = new BigInteger(130, new SecureRandom()).toString(32);
        AuthorizationCodeRequestUrl url = flow.newAuthorizationUrl().setRedirectUri(redirectUri).setState(state);
        if (!setting("LOGIN_PAGE", "").isEmpty()) url.set("loginPage", setting("LOGIN_PAGE", ""));
        System.out.println("AUTHORIZE " + url.build());
        AuthorizationCodeResponseUrl back = new AuthorizationCodeResponseUrl(redirected.get());
        listener.stop(0);
        if (back.getError() != null) throw new Exception(back.getError() + ": " + back.getErrorDescription());
        if (!state.equals(back.getState())) throw new Exception("this is not the login that was begun here");
        tokens = flow.newTokenRequest(back.getCode()).setRedirectUri(redirectUri).execute();
        credential = flow.createAndStoreCredential(tokens, "the user");
        return "expires_in=" + tokens.getExpiresInSeconds();
    }

    String discover() throws Exception {
        // The first call goes to the base URL, later ones to where it led.
        String base = place == null ? setting("API_BASE", "") + "/api/third-party/v2" : place;
        Api api = call("GET", base + DISCOVERY, null).parseAs(Discovered.class).apis.get(0);
        place = api.domain.replaceAll("/$", "") + api.path;
        return "at=" + place;
    }

    String findAccount() throws Exception {
        String wanted = setting("ACCOUNT_ID", "first");
        List<Account> accounts = call("GET", place + "/related-accounts", null).parseAs(Accounts.class).data;
        account = accounts.stream()
            .filter(one -> wanted.equals("first") || wanted.equals(one.id.toString())).findFirst().get().id;
        return "account=" + account;
    }

    String pair() throws Exception {
        GenericJson body = new GenericJson().set("AccountId", account);
        body.set("CallbackUrl", setting("CALLBACK_URL", ""));
        tokens = call("PUT", place + "/pair-account", new JsonHttpContent(JSON, body)).parseAs(Paired.class).data.tokens;
        // "From this point on, these set of tokens must be used."
        credential.setFromTokenResponse(tokens);
        return facts(credential.getRefreshToken());
    }

    String refresh() throws Exception {
        String before = credential.getRefreshToken();
        if (!credential.refreshToken()) throw new Exception("the library could not refresh");
        discover();
        boolean same = before.equals(credential.getRefreshToken());
        return facts(credential.getRefreshToken()) + " same_refresh_token=" + (same ? "yes" : "no");
    }

    String orders() throws Exception {
        listed = call("GET", place + setting("ORDERS_PATH", ""), null).parseAs(Orders.class).data;
        return "orders=" + listed.size();
    }

    String download() throws Exception {
        HttpResponse asset = call("GET", listed.get(0).links.get(0).url, null);
        return "bytes=" + asset.getContent().readAllBytes().length;
    }

    // The library has nothing for it but the client's authentication.
    String revoke() throws Exception {
        Map<String, String> fields = new HashMap<>();
        fields.put("token", credential.getRefreshToken());
        fields.put("token_type_hint", "refresh_token");
        UrlEncodedContent form = new UrlEncodedContent(fields);
        HttpRequest request =
            transport.createRequestFactory().buildPostRequest(new GenericUrl(OAUTH + "/oauth2/revoke"), form);
        request.setInterceptor(clientAuthentication);
        return "status=" + request.execute().getStatusCode();
    }

    private String facts(String refreshToken) {
        return "expires_in=" + credential.getExpiresInSeconds() + " refresh_chars=" + refreshToken.length();
    }

    private HttpResponse call(String method, String url, HttpContent body) throws Exception {
        HttpRequest request =
            transport.createRequestFactory(credential).buildRequest(method, new GenericUrl(url), body);
        return request.setParser(new JsonObjectParser(JSON)).execute();
    }

    private static boolean step(String name, Work work) {
        try {
            System.out.println("STEP " + name + " ok " + work.run());
            return true;
        } catch (Exception error) {
            System.out.println("STEP " + name + " failed " + error.toString().replace("\n", " "));
            return false;
        }
    }

    private static String setting(String name, String otherwise) {
        return System.getenv().getOrDefault(name, otherwise);
    }
}
