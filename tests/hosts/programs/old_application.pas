{ Free Pascal's fphttpclient with OpenSSL. Usage: old_application REFRESH_TOKEN CA_FILE. In 3.2.2 nothing is verified unless the
  program asks for it, and an https address behind a proxy does not work: it asks for no tunnel. }
program old_application;

{$mode objfpc}{$H+}

uses
  Classes, SysUtils, fphttpclient, openssl, opensslsockets, ssockets, sslsockets, fpjson, jsonparser;

type
  TTrust = class
    procedure Make(Sender: TObject; const UseSSL: Boolean; out Handler: TSocketHandler);
  end;

var
  Client: TFPHTTPClient;
  Trust: TTrust;

procedure TTrust.Make(Sender: TObject; const UseSSL: Boolean; out Handler: TSocketHandler);
var
  Verifying: TOpenSSLSocketHandler;
begin
  Verifying := TOpenSSLSocketHandler.Create;
  Verifying.VerifyPeerCert := True;
  Verifying.CertificateData.CertCA.FileName := ParamStr(2);
  Handler := Verifying;
end;

{ As text, in UTF-8. }
function Fields(const Text: string): TJSONData;
begin
  Result := GetJSON(Text);
end;

var
  Answer: TStringStream;
  Token, Link: string;
begin
  { 3.2.2 looks for libssl.so, which is in libssl-dev alone, and for versions before 3. }
  DLLVersions[2] := '.3';
  Trust := TTrust.Create;
  Client := TFPHTTPClient.Create(nil);
  Client.OnGetSocketHandler := @Trust.Make;
  Token := Fields(Client.FormPost('https://identity-cus.aligntech.com/oauth2/token',
    'grant_type=refresh_token&client_id=old-application&refresh_token=' + ParamStr(1))).FindPath('access_token').AsString;
  Client.AddHeader('Authorization', 'Bearer ' + Token);
  Link := Fields(Client.Get('https://api-proxy.aligntech.com/itero-gen-api/v2/orders/practice'))
    .FindPath('Data[0].URLs[0].Url').AsString;
  if Pos('https://api-proxy.aligntech.com/', Link) <> 1 then
    raise Exception.Create(Link);
  Answer := TStringStream.Create('');
  Client.Get(Link, Answer);
  if Answer.Size = 0 then
    raise Exception.Create('nothing downloaded');
  WriteLn('downloaded ', Answer.Size, ' bytes');
end.
