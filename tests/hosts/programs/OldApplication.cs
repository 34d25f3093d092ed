// Mono's HttpWebRequest, as in programs for .NET Framework. Usage: mono OldApplication.exe REFRESH_TOKEN [PROXY]; trust by
// cert-sync. The proxy is given as programs have it in their settings.
using System;
using System.IO;
using System.Net;
using System.Text;
using System.Text.RegularExpressions;

class OldApplication
{
    static IWebProxy proxy;

    static void Main(string[] arguments)
    {
        if (arguments.Length > 1)
        {
            proxy = new WebProxy(arguments[1]);
        }
        string form = "grant_type=refresh_token&client_id=old-application&refresh_token=" + arguments[0];
        string token = Find("access_token", Call("https://identity-cus.aligntech.com/oauth2/token", null, form));
        string orders = Call("https://api-proxy.aligntech.com/itero-gen-api/v2/orders/practice", token, null);
        string link = Find("Url", orders);
        if (!link.StartsWith("https://api-proxy.aligntech.com/"))
        {
            throw new Exception(link);
        }
        string file = Call(link, token, null);
        if (file.Length == 0)
        {
            throw new Exception("nothing downloaded");
        }
        Console.WriteLine("downloaded {0} bytes", file.Length);
    }

    static string Call(string url, string token, string form)
    {
        var call = (HttpWebRequest)WebRequest.Create(url);
        if (proxy != null)
        {
            call.Proxy = proxy;
        }
        if (token != null)
        {
            call.Headers["Authorization"] = "Bearer " + token;
        }
        if (form != null)
        {
            call.Method = "POST";
            call.ContentType = "application/x-www-form-urlencoded";
            byte[] body = Encoding.ASCII.GetBytes(form);
            using (Stream stream = call.GetRequestStream())
            {
                stream.Write(body, 0, body.Length);
            }
        }
        using (var answer = call.GetResponse())
        using (var reader = new StreamReader(answer.GetResponseStream(), Encoding.GetEncoding("iso-8859-1")))
        {
            return reader.ReadToEnd();
        }
    }

    static string Find(string field, string json)
    {
        Match found = Regex.Match(json, "\"" + field + "\": *\"([^\"]*)\"");
        if (!found.Success)
        {
            throw new Exception("no " + field + " in " + json);
        }
        return found.Groups[1].Value;
    }
}
